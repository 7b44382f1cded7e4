"""Scorers behind an address: what vLLM, a moderation endpoint and servers of yours are asked, and what they answer."""

import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_api import Asked, Reply, serving
from fake_judge import KEY, answers, reasons, rewards, scored, scored_all
from helpers import Row, example, read

from irlhf.core.example import Example
from irlhf.scoring.scorers.base import Failure
from irlhf.scoring.scorers.server import Endpoint, Moderation, Served

pytestmark = pytest.mark.timeout(60)

ONE = [example(0)]
CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "how?"}]


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def came(answer: Any, rows: list[Row] = ONE, **spec: Any) -> Any:
    """Return the reward of the only row, or the reason why there is none."""
    with serving(answers(answer)) as server:
        address = {"scorer": f"{server.root}/score"} if "scorer" not in spec else {"base_url": server.url}
        outcome = scored(rows, "--on-bad-row", "skip", **address, **spec)
    assert outcome.code == int(not rewards()), outcome.err
    return rewards()[0] if rewards() else reasons()["e0"]


def probs(*numbers: Any) -> Row:
    """Return what vLLM says of a text."""
    one = {"index": 0, "label": "LABEL_0", "probs": list(numbers), "num_classes": len(numbers)}
    return {"id": "classify-1", "object": "list", "created": 1, "model": "rm", "data": [one], "usage": {}}


# --- a classifier that vLLM serves


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_vllm_is_asked_for_the_logits_of_a_chat_beside_v1(end: str) -> None:
    with serving(answers(probs(-3.25))) as server:
        rows = [example(0, prompt=CHAT, completion="so")]
        assert scored(rows, scorer="vllm:rm", base_url=server.root + end).code == 0
    assert rewards() == [-3.25]
    (asked,) = server.seen
    assert asked.path == "/classify"
    assert asked.body == {
        "model": "rm",
        "messages": [*CHAT, {"role": "assistant", "content": "so"}],
        "add_special_tokens": False,
        "use_activation": False,
    }
    assert "authorization" not in asked.headers


def test_vllm_may_be_shown_the_completion_alone() -> None:
    with serving(answers(probs(2.5))) as server:
        assert scored(ONE, scorer="vllm:rm", base_url=server.url, input="completion").code == 0
    assert server.seen[0].body == {"model": "rm", "input": "Answer 0.", "use_activation": False}


def test_labels_are_numbers_and_are_read_as_any_classifiers() -> None:
    with serving(answers(probs(1.0, -2.0, 0.5))) as server:
        spec = {"scorer": "vllm:rm", "base_url": server.url, "label": "2"}
        ways = ("logit", "probability", "difference")
        assert scored_all(ONE, {way: {**spec, "read": way} for way in ways}).code == 0
    others = math.log(math.exp(1) + math.exp(-2))
    found = read(Path("out.jsonl"))[0]["rewards"]
    assert found["logit"] == 0.5
    assert found["difference"] == pytest.approx(0.5 - others)
    assert found["probability"] == pytest.approx(1 / (1 + math.exp(others - 0.5)))
    assert len(server.seen) == 1


@pytest.mark.parametrize("label", ["", "3", "LABEL_0"])
def test_a_label_that_is_not_there_ends_the_run(label: str) -> None:
    with serving(answers(probs(1.0, -2.0))) as server:
        outcome = scored(ONE, "--on-bad-row", "skip", scorer="vllm:rm", base_url=server.url, label=label)
    assert outcome.code == 2
    told = (
        f"a: the scorer has no label '{label}'"
        if label
        else "a: the scorer returns 2 numbers (0, 1); choose one with `label"
    )
    assert told in outcome.err


@pytest.mark.parametrize("numbers", [(0.25, 0.75), (0.0, 1.0), (0.2001, 0.3, 0.5)])
def test_probabilities_in_the_place_of_logits_are_no_rewards(numbers: tuple[float, ...]) -> None:
    assert "returned probabilities, not logits" in came(probs(*numbers), scorer="vllm:rm", label="0")
    with serving(answers(probs(*numbers))) as server:
        outcome = scored(ONE, output="stop.jsonl", scorer="vllm:rm", base_url=server.url, label="0")
    assert (outcome.code, "does this vLLM know `use_activation`?" in outcome.err) == (2, True)


@pytest.mark.parametrize("numbers", [(0.25, 0.7), (0.75, 0.75), (-0.25, 1.25)])
def test_logits_that_could_be_probabilities_but_do_not_sum_to_one_are_logits(numbers: tuple[float, ...]) -> None:
    assert came(probs(*numbers), scorer="vllm:rm", label="0") == numbers[0]


@pytest.mark.parametrize(("outside", "warnings"), [((), 1), (range(12), 0), (range(30), 0)])
def test_twenty_numbers_between_0_and_1_are_worth_a_warning(outside: Sequence[int], warnings: int) -> None:
    def one(asked: Asked) -> Reply:
        number = int(asked.body["messages"][0]["content"].split()[1].strip("?"))
        return Reply(probs(1.5 if number in outside else number / 30))

    with serving(one) as server:
        outcome = scored([example(number) for number in range(30)], scorer="vllm:rm", base_url=server.url)
    assert (outcome.code, outcome.err.count("the first 20 numbers all lie between 0 and 1")) == (0, warnings)
    assert len(read(Path("out.jsonl"))) == 30


# --- moderation


def moderated(**scores: float | None) -> Row:
    result = {"flagged": True, "categories": {}, "category_scores": scores}
    return {"id": "modr-1", "model": "omni", "results": [result]}


def test_moderation_reads_the_largest_score_unless_a_category_is_named() -> None:
    with serving(answers(moderated(hate=0.25, violence=0.75, sexual=0.5))) as server:
        spec = {"scorer": "moderation:", "base_url": server.url}
        some = {"worst": spec, "hate": {**spec, "label": "hate"}, "top": {**spec, "label": "max"}}
        assert scored_all(ONE, some).code == 0
    assert read(Path("out.jsonl"))[0]["rewards"] == {"worst": 0.75, "hate": 0.25, "top": 0.75}
    (asked,) = server.seen
    assert asked.path == "/v1/moderations"
    assert asked.body == {"model": "omni-moderation-latest", "input": "Answer 0."}


def test_moderation_may_be_shown_the_whole_conversation() -> None:
    with serving(answers(moderated(hate=0.1))) as server:
        rows = [example(0, prompt=CHAT, completion="so")]
        assert scored(rows, scorer="moderation:mine", base_url=server.url, input="chat").code == 0
    assert server.seen[0].body == {"model": "mine", "input": "system: Be kind.\n\nuser: how?\n\nassistant: so"}


@pytest.mark.parametrize(
    ("scores", "label", "found"),
    [
        ({"hate": 0.5, "illicit": None}, "", 0.5),
        ({"hate": 0.5, "illicit": None}, "illicit", "the scorer has no label 'illicit'"),
        ({"hate": 0.5}, "hatred", "the scorer has no label 'hatred'; did you mean 'hate'?"),
        ({"hate": None}, "", "the server scored no category"),
        ({}, "", "the server scored no category"),
        ({"hate": math.nan, "violence": 0.5}, "", "reward 'a' is nan, not a finite number"),
        ({"violence": 0.5, "hate": math.nan}, "", "reward 'a' is nan, not a finite number"),
        ({"hate": math.nan, "violence": 0.5}, "violence", 0.5),
    ],
)
def test_what_moderation_does_not_score_is_a_failure_of_its_row(scores: Any, label: str, found: float | str) -> None:
    came_back = came(moderated(**scores), scorer="moderation", label=label)
    assert came_back == found if isinstance(found, float) else str(found) in str(came_back)


# --- a server of yours


@pytest.mark.parametrize(
    ("answer", "label", "reward"),
    [
        (0.5, "", 0.5),
        (-3, "", -3),
        ({"reward": 0.25}, "", 0.25),
        ({"score": 0.25}, "", 0.25),
        ({"reward": 0.25, "model": "rm"}, "", 0.25),
        ({"score": 0.25, "took": 3, "model": "rm"}, "", 0.25),
        ({"reward": 0.25, "status": 200}, "", 0.25),
        ({"kind": 1, "short": 2}, "short", 2),
        ({"kind": 1, "short": None}, "kind", 1),
        ({"kind": 1, "short": None}, "", 1),
        ({"rewards": {"kind": 1, "short": 2}, "id": "e0"}, "kind", 1),
        ({"scores": {"kind": 1.5}, "id": 7}, "", 1.5),
    ],
)
def test_a_server_of_yours_gives_a_number_or_several(answer: Any, label: str, reward: float) -> None:
    assert came(answer, label=label) == reward


@pytest.mark.parametrize(
    ("answer", "label", "reason"),
    [
        ("0.5", "", "expected a number or an object of numbers"),
        ({"reward": "0.5"}, "", "or an object of numbers): {'reward': '0.5'}"),
        ({"reward": None}, "", "an object of numbers"),
        ({"rewards": {}}, "", "an object of numbers"),
        ({"rewards": {"kind": "much"}}, "", "an object of numbers): {'rewards': {'kind': 'much'}}"),
        (True, "", "an object of numbers): True"),
        ([0.5], "", "an object of numbers): [0.5]"),
        (None, "", "an object of numbers): None"),
        ({}, "", "an object of numbers): {}"),
        ({"kind": 1, "short": 2}, "", "the scorer returns 2 numbers (kind, short); choose one with `label:`"),
        ({"kind": 1, "short": 2}, "kin", "the scorer has no label 'kin'; did you mean 'kind'?"),
        (math.nan, "", "reward 'a' is nan, not a finite number"),
        ({"reward": -math.inf}, "", "reward 'a' is -inf, not a finite number"),
        (10**400, "", "reward: input should be a valid number"),
        ({"reward": 1e300}, "", "reward 'a' is 1e+300, not a finite number"),
    ],
)
def test_what_is_no_number_is_told_as_it_came(answer: Any, label: str, reason: str) -> None:
    assert reason in came(answer, label=label)


def test_a_server_of_yours_is_posted_messages_a_completion_and_an_id() -> None:
    said = [{"role": "assistant", "content": "so"}]
    rows = [example(0), example(1, prompt=CHAT, completion=said)]
    with serving(answers(1.0)) as server:
        assert scored(rows, scorer=f"{server.root}/a/b/").code == 0
    seen = sorted(server.seen, key=lambda one: one.body["id"])
    assert {one.path for one in seen} == {"/a/b/"}
    assert [one.body for one in seen] == [
        {"prompt": [{"role": "user", "content": "Question 0?"}], "completion": "Answer 0.", "id": "e0"},
        {"prompt": CHAT, "completion": said, "id": "e1"},
    ]


@pytest.mark.parametrize("scorer", ["vllm:rm", ""])
def test_a_key_goes_where_it_is_named_for_and_nowhere_else(scorer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    monkeypatch.setenv("MINE", KEY)
    for output, more in (("none.jsonl", {}), ("mine.jsonl", {"api_key_env": "MINE"})):
        with serving(answers(probs(2.0) if scorer else 2.0)) as server:
            address = {"base_url": server.url} if scorer else {}
            assert scored(ONE, output=output, scorer=scorer or f"{server.root}/x", **address, **more).code == 0
        sent = server.seen[0].headers.get("authorization")
        assert sent == (f"Bearer {KEY}" if more else None)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"scorer": "vllm:", "base_url": "http://h/v1"}, "name the model behind the colon, as vLLM serves it"),
        ({"scorer": "vllm:rm"}, "name the server as `base_url:`, such as http://127.0.0.1:8000/v1"),
        ({"scorer": "vllm:rm", "base_url": "http://h", "input": "pair"}, "`input: pair` is unknown to this scorer"),
        ({"scorer": "moderation", "input": "pair"}, "`input: pair` is unknown to this scorer; use"),
        ({"scorer": "moderation"}, "https://api.openai.com/v1 requires a key: set OPENAI_API_KEY"),
        ({"scorer": "moderation", "read": "logit"}, "`read: logit` is for scorers that return logits"),
        ({"scorer": "http:nowhere"}, "a server's address is like http://127.0.0.1:8000/v1, without a key"),
        ({"scorer": f"https://h/score?key={KEY}"}, "a server's address is like"),
        ({"scorer": f"http://me:{KEY}@h/score"}, "a server's address is like"),
        (
            {"scorer": "http://h/score", "base_url": "http://h"},
            "this scorer does not accept `base_url:` (it accepts api_",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(spec: Row, reason: str) -> None:
    outcome = scored(ONE, **spec)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert reason in outcome.err
    assert KEY not in outcome.err


def test_scorers_travel_before_they_are_asked() -> None:
    url = "http://127.0.0.1:1/v1"
    for one in (Served("rm", base_url=url), Moderation("", base_url=url), Endpoint(url, timeout=3)):
        other = pickle.loads(pickle.dumps(one))
        assert (other.traits, other.client.timeout) == (one.traits, one.client.timeout)


def test_half_a_character_fails_its_row_and_is_not_sent() -> None:
    with serving(answers(1.0)) as server:
        (reply,) = Endpoint(f"{server.root}/x")([Example(id="0", prompt="a\ud800", completion="b")])
    assert isinstance(reply, Failure)
    assert "half a character" in reply.reason
    assert server.seen == []
