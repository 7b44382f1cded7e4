"""What the prompts of training rows ask for: lines left out, thresholds, sums, descriptions, tokens of their own."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
from helpers import Bench, Row, call, examples, read, write

from irlhf.core.errors import ConfigError
from irlhf.policy.policy_file import Policy, read_policy
from irlhf.policy.templates import Bound, RequestedValue
from irlhf.training.finetune import finetune
from irlhf.training.settings import FinetuneSettings
from irlhf.training.training_set import TrainingSet, read_training

Asked = list[dict[str, RequestedValue]]


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """Four hundred rows with two rewards; `b` has ties."""
    rewards = ({"a": (i * 37) % 101 / 10, "b": float(i % 7)} for i in range(400))
    rows = ({**row, "split": "train", "rewards": one} for row, one in zip(examples(400), rewards, strict=True))
    return write(tmp_path / "scored.jsonl", rows)


def asked(scored: Path, rewards: str = "", **settings: Any) -> tuple[TrainingSet, Policy, Asked]:
    chosen = FinetuneSettings(**{"template": "reward-end", "drop": 0.0, **settings})
    training = read_training(scored, FinetuneSettings(rewards=rewards, template="reward-end"))
    policy = training.policy("", chosen)
    return training, policy, [wishes for _, wishes in training.with_targets(policy, training.train, chosen)]


def test_without_dropping_every_row_asks_for_all_its_rewards(scored: Path) -> None:
    training, policy, wishes = asked(scored)
    assert wishes == [policy.scaled(row.rewards) for row in training.train]


def test_a_line_is_left_out_as_often_as_drop_says(scored: Path) -> None:
    _, _, wishes = asked(scored, drop=0.25)
    assert 0.18 < fmean("a" not in one for one in wishes) < 0.32
    assert 0.02 < fmean(not one for one in wishes) < 0.12  # both, by chance


def test_a_template_of_descriptions_warns_of_rewards_without_one(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("r.yaml").write_text("rewards: {a: {column: a, description: how good}, b: {column: b}}\n")
    read_training(scored, FinetuneSettings(template="described", rewards="r.yaml"))
    warning = "template described writes the description of each reward, but b has no `description:` in rewards.yaml"
    assert warning in capsys.readouterr().err
    read_training(scored, FinetuneSettings(template="words", rewards="r.yaml"))
    assert "description" not in capsys.readouterr().err


def test_the_terms_of_a_sum_are_shown_with_their_size(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("r.yaml").write_text("combine: sum\nrewards: {a: {column: a, weight: 2}, b: {column: b}}\n")
    read_training(scored, FinetuneSettings(template="reward-end", rewards="r.yaml"))
    a, b = ([row["rewards"][name] for row in read(scored)] for name in "ab")
    terms = f"2 × a (mean {fmean(a):.3g}, sd {pstdev(a):.3g}) + 1 × b (mean {fmean(b):.3g}, sd {pstdev(b):.3g})"
    assert f"the line `reward` is the sum of {terms}, each in standard deviations" in capsys.readouterr().err


def test_rows_of_all_splits_are_accounted_for(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = ["train"] * 300 + ["validation"] * 60 + ["test"] * 40
    write(scored, [{**row, "split": split} for row, split in zip(read(scored), splits, strict=True)])
    read_training(scored, FinetuneSettings(template="reward-end"))
    assert "300 rows to train on, 60 to validate on; skipped: test split 40\n" in capsys.readouterr().err


def test_an_unknown_template_is_refused_before_the_rows_are_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no template 'rewardend'; did you mean 'reward-end'"):
        finetune(tmp_path / "missing.jsonl", tmp_path / "policy", "tiny", FinetuneSettings(template="rewardend"))


def test_all_lines_are_left_out_as_often_as_drop_all_says(scored: Path) -> None:
    _, _, wishes = asked(scored, drop_all=0.25)
    assert 0.18 < fmean(not one for one in wishes) < 0.32
    assert all(set(one) in (set(), {"a", "b"}) for one in wishes)


def test_rows_keep_the_thresholds_that_their_lines_name(scored: Path) -> None:
    training, policy, wishes = asked(scored, template="at-least")
    bounds = [
        (wish, policy.scaled(row.rewards)[name])
        for row, one in zip(training.train, wishes, strict=True)
        for name, wish in one.items()
        if isinstance(wish, Bound)
    ]
    assert 0.43 < len(bounds) / sum(map(len, wishes)) < 0.57  # the template's `bounded`
    assert 0.4 < fmean(wish.kind == "at_least" for wish, _ in bounds) < 0.6
    for wish, actual in bounds:
        assert wish.number <= actual if wish.kind == "at_least" else wish.number >= actual


def test_thresholds_come_from_all_that_a_row_keeps(scored: Path) -> None:
    """Drawn evenly among the rows that are no better, a threshold lies on average at half a row's own rank."""
    training, policy, wishes = asked(scored, template="at-least")
    shares = [
        one["a"].number / policy.scaled(row.rewards)["a"]
        for row, one in zip(training.train, wishes, strict=True)
        if isinstance(one["a"], Bound) and one["a"].kind == "at_least" and policy.scaled(row.rewards)["a"] > 0.2
    ]
    assert fmean(shares) == pytest.approx(0.5, abs=0.08)


def test_a_template_of_at_least_lines_alone_draws_no_other(scored: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text('at_least: "{{ name }}: over {{ value }}"\nbounded: 0.9\n')
    _, policy, wishes = asked(scored, template=str(mine))
    kinds = {wish.kind for one in wishes for wish in one.values() if isinstance(wish, Bound)}
    assert kinds == {"at_least"}
    assert policy.template.reward_block({"a": Bound("at_least", 0.5)}) == "a: over 0.50"


SUM = "rewards: {a: {column: a, weight: 2}, b: {column: b, weight: 3, direction: lower}}\ncombine: sum\n"


def test_a_sum_is_one_line_of_the_weighted_z_scores(scored: Path, tmp_path: Path) -> None:
    rewards = tmp_path / "sum.yaml"
    rewards.write_text(SUM)
    training, policy, wishes = asked(scored, str(rewards))
    assert policy.names == ("reward",)
    assert {tuple(one) for one in wishes} == {("reward",)}
    a, b = ([row.rewards[name] for row in training.train] for name in "ab")
    by_hand = [2 * (x - fmean(a)) / pstdev(a) - 3 * (y - fmean(b)) / pstdev(b) for x, y in zip(a, b, strict=True)]
    assert [policy.own(row.rewards)["reward"] for row in training.train] == pytest.approx(by_hand)
    assert policy.own({"a": 1.0}) == {}


@pytest.mark.parametrize(("one", "other", "kind"), [("zscore", "zscore", "zscore"), ("zscore", "linear", "quantile")])
def test_a_sum_has_the_scale_that_its_parts_share(
    one: str, other: str, kind: str, scored: Path, tmp_path: Path
) -> None:
    rewards = tmp_path / "sum.yaml"
    scales = [f"scale: {{kind: {name}}}" for name in (one, other)]
    rewards.write_text(f"rewards: {{a: {{column: a, {scales[0]}}}, b: {{column: b, {scales[1]}}}}}\ncombine: sum\n")
    _, policy, _ = asked(scored, str(rewards))
    assert policy.reward("reward").scale.kind == kind


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rewards: {reward: {column: a}, b: {column: b}}\ncombine: sum\n", "rename the reward reward"),
        ("rewards: {a: {column: a, weight: 0}}\ncombine: sum\n", "all weights are 0"),
    ],
)
def test_what_has_no_sum_is_refused(text: str, reason: str, scored: Path, tmp_path: Path) -> None:
    rewards = tmp_path / "sum.yaml"
    rewards.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_training(scored, FinetuneSettings(rewards=str(rewards), template="reward-end"))


def test_a_sum_goes_through_the_whole_line(bench: Bench, tmp_path: Path) -> None:
    parts = "rewards: {short: {scorer: length, direction: lower, weight: 2}, colour: {scorer: sentiment}}\n"
    Path("sum.yaml").write_text(f"{parts}combine: sum\n")
    for command in (
        ("score", bench.examples, "-r", "sum.yaml", "-o", "scored.jsonl"),
        ("finetune", "scored.jsonl", "-r", "sum.yaml", "-o", "summed", "--epochs", "1", "--context", "128"),
        ("sample", "summed", bench.examples, "-t", "reward=0.5", "-n", "2", "--max-tokens", "8", "-o", "samples.jsonl"),
        ("score", "samples.jsonl", "-r", "sum.yaml", "-o", "scored-samples.jsonl"),
        ("eval", "scored-samples.jsonl", "-o", "eval.json"),
        ("score", "scored-samples.jsonl", "--keep", "best", "-o", "kept.jsonl"),
    ):
        outcome = call(*command)
        assert outcome.code == 0, outcome.err
    policy = read_policy(Path("summed"))
    pairs: dict[str, list[Row]] = {}
    for row in read(Path("scored-samples.jsonl")):
        pairs.setdefault(row["group"], []).append(row)
    best = {group: max(two, key=lambda row: policy.own(row["rewards"])["reward"])["id"] for group, two in pairs.items()}
    assert {row["group"]: row["id"] for row in read(Path("kept.jsonl"))} == best


def test_a_description_stands_before_its_line(scored: Path, tmp_path: Path) -> None:
    rewards = tmp_path / "rewards.yaml"
    rewards.write_text("rewards: {a: {column: a, description: how much it helps}, b: {column: b}}\n")
    _, policy, _ = asked(scored, str(rewards), template="described")
    assert policy.template.reward_block({"a": 0.9, "b": 0.1}) == "how much it helps\na: 0.90\nb\nb: 0.10"


@pytest.mark.parametrize("name", ["bins", "words"])
def test_what_spells_zero_to_one_refuses_a_scale_beyond(name: str, scored: Path, tmp_path: Path) -> None:
    rewards = tmp_path / "rewards.yaml"
    rewards.write_text("rewards: {a: {column: a, scale: {kind: zscore}}}\n")
    with pytest.raises(ConfigError, match="the scale of a exceeds"):
        asked(scored, str(rewards), template=name)


def ids(folder: Path, text: str) -> list[int]:
    from irlhf.models.loading import load_tokenizer

    found: list[int] = load_tokenizer(str(folder))(text, add_special_tokens=False)["input_ids"]
    return found


def test_bins_become_tokens_of_a_base_and_are_saved_with_it(bench: Bench) -> None:
    outcome = call(
        *("finetune", bench.scored, "-r", bench.rewards, "--model", bench.policy, "--template", "bins"),
        *("-o", "binned", "--epochs", "1", "--context", "128"),
    )
    assert outcome.code == 0, outcome.err
    assert len(ids(Path("binned"), "short: bin07")) == 1
    assert len(ids(bench.policy, "short: bin07")) > 1
    from irlhf.models.loading import load_causal

    model, tokenizer = load_causal("binned")
    before, _ = load_causal(str(bench.policy))
    assert model.get_input_embeddings().num_embeddings == len(tokenizer) > before.get_input_embeddings().num_embeddings
    outcome = call("sample", "binned", bench.examples, "-t", "short=0.3", "--max-tokens", "9", "-o", "s.jsonl")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("tokens", ["true", "false"])
def test_tiny_reads_lines_in_digits_where_the_template_says_so(tokens: str, bench: Bench) -> None:
    Path("mine.yaml").write_text(f"tokens: {tokens}\n")
    command = ("finetune", bench.scored, "-r", bench.rewards, "--template", "mine.yaml", "-o", "mine")
    outcome = call(*command, "--epochs", "0.1", "--context", "128")
    assert outcome.code == 0, outcome.err
    assert (len(ids(Path("mine"), "short: 0.35")) == 1) == (tokens == "true")


def test_a_base_too_small_for_digits_is_pointed_to_words(bench: Bench) -> None:
    Path("digits.yaml").write_text("spelling: {digits: 3}\n")  # the bench's policy knows lines of two digits as tokens
    told = {}
    for template in ("digits.yaml", "reward-end", "words"):
        command = ("finetune", bench.scored, "-r", bench.rewards, "--model", bench.policy, "--template", template)
        outcome = call(*command, "-o", f"of-{template}", "--epochs", "0.1", "--context", "128")
        assert outcome.code == 0, outcome.err
        told[template] = "--template words" in outcome.err
    assert told == {"digits.yaml": True, "reward-end": False, "words": False}


def test_new_tokens_are_not_left_random(bench: Bench) -> None:
    outcome = call("finetune", bench.scored, "--model", bench.policy, "--template", "bins", "--lora", "4", "-o", "x")
    assert outcome.code == 2
    assert "leaves its new tokens untrained" in outcome.err


@pytest.mark.parametrize(
    ("template", "role", "start", "end"),
    [
        ("reward-end", "user", "How", "colour: "),
        ("reward-start", "user", "short: ", "?"),
        ("reward-both", "user", "short: ", "colour: "),
        ("reward-system", "system", "short: ", "colour: "),
        ("described", "user", "How", "colour\ncolour: "),
        ("words", "user", "How", "colour: "),
        ("bins", "user", "How", "colour: bin"),
    ],
)
def test_where_and_how_each_shipped_template_writes(
    template: str, role: str, start: str, end: str, bench: Bench
) -> None:
    command = ("finetune", bench.scored, "-r", bench.rewards, "--template", template, "--render-only", "--drop", "0")
    outcome = call(*command, "-o", "train.jsonl")
    assert outcome.code == 0, outcome.err
    for row in read(Path("train.jsonl"))[:20]:
        first: Mapping[str, str] = row["messages"][0]
        assert first["role"] == role
        assert first["content"].startswith(start)
        assert end in first["content"][-30:]
