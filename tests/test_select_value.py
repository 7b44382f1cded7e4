"""Which number of a classifier's is the reward: against torch's own functions, and at the ends of what floats hold."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import call, example, read, write
from hypothesis import given, settings
from hypothesis import strategies as st
from test_classifier import EXAMPLES, LABELS, WORDS, alone, bert, llama

from irlhf.core.errors import ConfigError
from irlhf.core.example import Example
from irlhf.policy.rewards_file import Reward
from irlhf.scoring.cache import Cache
from irlhf.scoring.runner import ScorerRunner, read_number, scorer_groups
from irlhf.scoring.scorers.base import Failure, Traits

NO = Example(id="b", prompt="how", completion="no")  # [CLS] how [SEP] no [SEP]
NO_IDS = ([2, WORDS.index("how"), 3, WORDS.index("no"), 3], [0, 0, 0, 1, 1])
SIGMOIDS = {"problem_type": "multi_label_classification"}
TWO = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}


def asked(beside: Path, specs: dict[str, dict[str, str]]) -> ScorerRunner:
    wanted = {name: Reward(**spec) for name, spec in specs.items()}
    return ScorerRunner(scorer_groups(wanted, beside), Cache(beside / "replies.sqlite"))


def said(panel: ScorerRunner, examples: list[Example]) -> list[Any]:
    return list(panel(examples, lambda rows: None))


def softmax(logits: list[float], place: int) -> float:
    return float(torch.tensor(logits, dtype=torch.float64).softmax(0)[place])


def sigmoid(logits: list[float], place: int) -> float:
    return float(torch.tensor(logits[place], dtype=torch.float64).sigmoid())


@pytest.mark.parametrize(
    ("config", "label", "probability"),
    [
        ({"num_labels": 1}, "", sigmoid),
        (TWO, "good", softmax),
        (TWO, "bad", softmax),
        ({"num_labels": 2}, "LABEL_1", softmax),
        (LABELS, "fair", softmax),
        ({**LABELS, "problem_type": "single_label_classification"}, "good", softmax),
        ({**TWO, **SIGMOIDS}, "good", sigmoid),
        ({**LABELS, **SIGMOIDS}, "fair", sigmoid),
    ],
)
def test_each_reading_is_what_torch_makes_of_the_logits(
    config: dict[str, Any], label: str, probability: Any, tmp_path: Path
) -> None:
    folder = bert(tmp_path / "rm", **config)
    logits = alone(folder, NO_IDS[0], token_type_ids=NO_IDS[1])
    names = list(config.get("id2label", {}).values()) or [f"LABEL_{n}" for n in range(config["num_labels"])]
    place = names.index(label) if label else 0
    spec = {"scorer": "./rm", "label": label}
    panel = asked(tmp_path, {one: {**spec, "read": one} for one in ("logit", "probability", "difference")})
    (found,) = said(panel, [NO])
    expected = probability(logits, place)
    assert found["logit"] == pytest.approx(logits[place], abs=1e-5)
    assert found["probability"] == pytest.approx(expected, abs=1e-6)
    assert found["difference"] == pytest.approx(math.log(expected / (1 - expected)), abs=1e-4)


def test_the_difference_of_two_labels_is_that_of_their_logits(tmp_path: Path) -> None:
    bad, good = alone(bert(tmp_path / "rm", **TWO), NO_IDS[0], token_type_ids=NO_IDS[1])
    (found,) = said(asked(tmp_path, {"a": {"scorer": "./rm", "label": "good", "read": "difference"}}), [NO])
    assert found["a"] == pytest.approx(good - bad, abs=1e-5)


def number(logits: dict[str, float], how: str, link: str) -> Any:
    return read_number("a", Reward(scorer="x", label="one", read=how), logits, Traits(link=link))


@pytest.mark.parametrize(
    ("logits", "link", "difference", "probability"),
    [
        ({"one": 1e4, "two": -1e4}, "softmax", 2e4, 1.0),
        ({"one": -1e4, "two": 1e4}, "softmax", -2e4, 0.0),
        ({"one": 1e4, "two": 1e4}, "softmax", 0.0, 0.5),
        ({"one": 1e4, "two": 1e4, "three": 1e4}, "softmax", -math.log(2), 1 / 3),
        ({"one": -1e4, "two": -1e4, "three": -1e4 - 800}, "softmax", 0.0, 0.5),
        ({"one": 3e38, "two": -3e38}, "softmax", 6e38, 1.0),
        ({"one": 1e4, "two": 0.0}, "sigmoid", 1e4, 1.0),
        ({"one": -1e4, "two": 0.0}, "sigmoid", -1e4, 0.0),
        ({"one": -700.0}, "sigmoid", -700.0, math.exp(-700)),
        ({"one": 37.0, "two": 0.0}, "softmax", 37.0, 1 / (1 + math.exp(-37))),
    ],
)
def test_readings_hold_where_exponentials_overflow(
    logits: dict[str, float], link: str, difference: float, probability: float
) -> None:
    assert number(logits, "difference", link) == pytest.approx(difference)
    assert number(logits, "probability", link) == pytest.approx(probability, rel=1e-12)


@given(st.lists(st.floats(-1e5, 1e5), min_size=2, max_size=5))
@settings(deadline=None)
def test_probabilities_sum_to_one_and_differences_order_as_they_do(values: list[float]) -> None:
    logits = {str(place): value for place, value in enumerate(values)}
    specs = [Reward(scorer="x", label=label, read="probability") for label in logits]
    shares = [read_number("a", spec, logits, Traits(link="softmax")) for spec in specs]
    assert math.fsum(one for one in shares if isinstance(one, float)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["one", "two"])
def test_a_logit_that_is_no_number_gives_no_probability(odd: float, place: str) -> None:
    logits = {"one": 1.0, "two": 1.0} | {place: odd}
    assert isinstance(number(logits, "probability", "softmax"), Failure)
    assert isinstance(number(logits, "difference", "softmax"), Failure)
    assert isinstance(number(logits, "logit", "softmax"), Failure) is (place == "one")


def test_a_nan_of_the_model_fails_its_own_row_alone(tmp_path: Path) -> None:
    folder = bert(tmp_path / "rm", num_labels=1)
    _spoil(folder, "well")
    write(
        Path("in.jsonl"), [example(n, prompt=one.prompt, completion=one.completion) for n, one in enumerate(EXAMPLES)]
    )
    Path("rewards.yaml").write_text("rewards: {a: {scorer: ./rm}}")
    outcome = call("score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl", "--on-bad-row", "skip")
    assert outcome.code == 0
    assert [row["id"] for row in read(Path("out.jsonl"))] == ["e0", "e1", "e2"]
    (failed,) = read(Path("out.jsonl.rejected.jsonl"))
    assert (failed["where"], failed["reason"]) == ("e3", "reward 'a' is nan, not a finite number")


def _spoil(folder: Path, word: str) -> None:
    """Make all that the model says of this word a NaN."""
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight[WORDS.index(word)] = math.nan
    model.save_pretrained(folder)


def passes(panel: ScorerRunner) -> list[int]:
    """Return a list that grows by the rows of each pass through a model."""
    seen: list[int] = []
    for one in panel.groups:
        model = one.scorer._reader.model  # type: ignore[attr-defined]
        model.register_forward_pre_hook(lambda _, __, given: seen.append(len(given["input_ids"])), with_kwargs=True)
    return seen


def test_several_labels_and_readings_of_one_model_are_one_pass(tmp_path: Path) -> None:
    bert(tmp_path / "rm", **LABELS)
    specs = [(label, how) for label in ("bad", "fair", "good") for how in ("logit", "probability", "difference")]
    wanted = {f"{label}-{how}": {"scorer": "./rm", "label": label, "read": how} for label, how in specs}
    panel = asked(tmp_path, wanted)
    seen = passes(panel)
    (found,) = said(panel, [NO])
    assert seen == [1]
    assert sum(found[f"{label}-probability"] for label in ("bad", "fair", "good")) == pytest.approx(1)


def test_what_the_model_is_shown_otherwise_is_another_pass(tmp_path: Path) -> None:
    bert(tmp_path / "rm", num_labels=1)
    spec = {"scorer": "./rm"}
    panel = asked(tmp_path, {"a": spec, "b": {**spec, "input": "completion"}, "c": {**spec, "weight": "2"}})
    seen = passes(panel)
    (found,) = said(panel, [NO])
    assert seen == [1, 1]
    assert found["a"] == found["c"] != found["b"]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"rubric": "a.md"}, "a: this scorer does not accept `rubric:` (it accepts input, revision); remove it"),
        ({"votes": 3}, "a: this scorer does not accept `votes:`"),
        ({"options": {"x": 1}}, "a: this scorer does not accept `options:`"),
        ({"revision": "main"}, "a folder has no `revision:`; remove it"),
        ({"input": "chat"}, "no chat template; use `input: pair` or `input: completion`"),
    ],
)
def test_a_key_that_means_nothing_to_a_classifier_is_refused(spec: Any, told: str, tmp_path: Path) -> None:
    bert(tmp_path / "rm", num_labels=1)
    with pytest.raises(ConfigError) as caught:
        said(asked(tmp_path, {"a": {"scorer": "./rm", **spec}}), [NO])
    assert told in str(caught.value)


@pytest.mark.parametrize("scorer", ["length", "distinct", "sentiment", "command: cat", "mine:f"])
def test_only_what_gives_logits_is_read_as_a_probability(scorer: str) -> None:
    with pytest.raises(ConfigError, match="a: `read: probability` is for scorers that return logits; remove it"):
        scorer_groups({"a": Reward(scorer=scorer, read="probability")}, Path())


@pytest.mark.parametrize("scorer", ["./rm", "rm", "hf:rm", "hf:./rm", "../yaml/rm"])
def test_a_folder_stands_beside_the_rewards_that_name_it(scorer: str, tmp_path: Path) -> None:
    beside = tmp_path / "yaml"
    beside.mkdir()
    llama(beside / "rm", pad_token_id=0)
    (beside / "rewards.yaml").write_text(f"rewards: {{a: {{scorer: '{scorer}'}}}}")
    write(Path("in.jsonl"), [example(0, prompt="how", completion="no")])
    outcome = call("score", "in.jsonl", "-r", beside / "rewards.yaml", "-o", "out.jsonl")
    assert outcome.code == 0, outcome.err


def test_a_folder_may_stand_in_your_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    bert(tmp_path / "rm", num_labels=1)
    there, here = ({"scorer": scorer} for scorer in ("~/rm", str(tmp_path / "rm")))
    (found,) = said(asked(tmp_path, {"a": there, "b": here}), [NO])
    assert found["a"] == found["b"]
