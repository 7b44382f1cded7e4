"""Language models that judge: what they are shown, and what number their answer is."""

import json
import math
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_api import Asked, Reply, error, serving
from fake_judge import KEY, RUBRIC, answers, chat, place, reasons, rewards, scored, scored_all, several, shown, sure
from helpers import Row, call, example, names
from test_judge_prompt import HOSTILE

from irlhf.core.example import Example
from irlhf.policy.judge_prompt import verdict_messages
from irlhf.scoring.scorers.llm_judge import LLMJudge, Verdict

pytestmark = pytest.mark.timeout(60)

ONE = [example(0)]


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def judged(script: Any, rows: list[Row] = ONE, **spec: Any) -> Any:
    """Return the reward of the only row that a judge gives, or the reason why there is none."""
    with serving(script if callable(script) else answers(*script)) as server:
        spec = {"scorer": "openai:m", "rubric": "rubric.md", "base_url": server.url, **spec}
        outcome = scored(rows, "--on-bad-row", "skip", **spec)
    assert outcome.code == int(not rewards()), outcome.err
    return rewards()[0] if rewards() else reasons()["e0"]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([place("8", {"8": 0.5, "7": 0.3, "9": 0.2})], (8 * 0.5 + 7 * 0.3 + 9 * 0.2) / 1.0),
        ([place("8", {"8": 0.4, "2": 0.2, "I": 0.3})], (8 * 0.4 + 2 * 0.2) / 0.6),
        ([place(" 8", {" 8": 0.3, "8": 0.3, "1": 0.4})], 8 * 0.6 + 1 * 0.4),
        ([place("\n", {"\n": 1.0}), place("8", {"8": 0.75, "4": 0.25})], 7.0),
        ([place("**", {"3": 0.9, "**": 0.1}), place("8", {"8": 1.0}), place("**", {"**": 1.0})], 8.0),
        ([place("8", {"8": 0.6, "10": 0.3, "\uff18": 0.1})], 8.0),
        ([place("8", {"8": 1.0}), place("", {"1": 1.0})], 8.0),
    ],
)
def test_points_are_what_is_to_be_expected_of_the_digits(places: list[Row], expected: float) -> None:
    text = "".join(one["token"] for one in places)
    assert judged([chat(text, *places)]) == pytest.approx(expected, abs=1e-12)


def test_what_a_server_could_not_tell_is_left_out() -> None:
    one = place("8", {"8": 0.6, "7": 0.2})
    one["top_logprobs"] += [{"token": "9", "logprob": number} for number in (-9999.0, None, -math.inf, math.nan)]
    assert judged([chat("8", one)]) == pytest.approx((8 * 0.6 + 7 * 0.2) / 0.8)


BARE = {"token": "8", "logprob": -0.1}
THOUGHT = [place("1", {"1": 1.0}), place(".", {".": 1.0}), place(" The", {" The": 1.0})]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (chat("8"), "the server returned no logprobs; `votes: 5` uses the mean of five sampled answers"),
        (chat("8", BARE), "the server returned no logprobs; `votes: 5`"),
        (chat("8", {**BARE, "top_logprobs": []}), "the server returned no logprobs; `votes: 5`"),
        (
            chat("8", place("8", {"8": 0.3, "I": 0.25})),
            "expected one digit from 0 to 9, but these together have a probability of 0.3",
        ),
        (chat("8", place("8", {"8": math.exp(0.9)})), "a probability of 2.5"),  # shares where logarithms are due
        (chat("8", place("8", {"8": math.exp(700)})), "a probability of 2.7"),
        (chat('"8', place('"8', {'"8': 1.0})), "a probability of 0"),
        (chat("1. The", *THOUGHT), "answered '1. The', expected one digit from 0 to 9"),
        (
            chat("I cannot\n\x1b[31mjudge", place("I", {"I": 1.0})),
            "answered 'I cannot \N{SYMBOL FOR SUBSTITUTE FORM TWO}[31mjudge', expected",
        ),
        (chat("-3", place("-", {"-": 1.0})), "answered '-3', expected"),
        (chat("10", place("10", {"10": 1.0})), "answered '10', expected"),
        (chat("w" * 999, place("w", {"w": 1.0})), f"answered '{'w' * 80}', expected"),
        (chat(None, place("Hmm", {"Hmm": 1.0}), finish_reason="length"), "no answer (finish reason 'length')"),
        (chat("", place("", {"": 1.0})), "no answer (finish reason 'stop')"),
        (chat(None, refusal="I will not\njudge."), "the model refused: 'I will not judge.'"),
        (chat("", finish_reason="content_filter"), "the server's filter withheld the answer (content_filter)"),
        ({"choices": []}, "the reply has an unexpected shape (choices: list should have at least 1 item"),
    ],
)
def test_an_answer_without_points_is_a_failure_that_says_what_came(answer: Row, reason: str) -> None:
    assert reason in judged([answer])


def test_a_digit_out_of_range_is_none() -> None:
    assert "expected one digit from 1 to 5" in judged([sure(7)], points=[1, 5])


def test_digits_out_of_range_count_for_nothing() -> None:
    assert judged([chat("5", place("5", {"5": 0.6, "3": 0.2, "7": 0.2}))], points=[1, 5]) == pytest.approx(4.5)


def test_a_judge_is_asked_for_one_likeliest_digit_with_logprobs() -> None:
    with serving(answers(sure(3))) as server:
        assert scored(ONE, scorer="openai:m", rubric="rubric.md", base_url=server.url + "/").code == 0
    (asked,) = server.seen
    assert asked.path == "/v1/chat/completions"
    assert {name: value for name, value in asked.body.items() if name != "messages"} == {
        "model": "m",
        "max_tokens": 16,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 20,
    }
    system, user = asked.body["messages"]
    assert system["content"].startswith(RUBRIC + "\n\n")
    assert system["content"].endswith("one digit from 0 (worst) to 9 (best) and nothing else.")
    assert json.loads(user["content"]) == {
        "conversation": [{"role": "user", "content": "Question 0?"}],
        "reply": "Answer 0.",
    }


@pytest.mark.parametrize("text", [*HOSTILE, "a\u2028b\x00\x1b[2J \N{PILE OF POO}"])
def test_nothing_in_a_text_ends_its_quotation(text: str) -> None:
    with serving(answers(sure(3))) as server:
        rows = [example(0, completion=text, prompt=[{"role": "user", "content": text}])]
        assert scored(rows, scorer="openai:m", rubric="rubric.md", base_url=server.url).code == 0
    (asked,) = server.seen
    assert shown(asked) == {"conversation": [{"role": "user", "content": text}], "reply": text}
    assert [one["role"] for one in asked.body["messages"]] == ["system", "user"]
    assert text not in asked.body["messages"][0]["content"]


def test_half_a_character_is_judged_as_a_question_mark() -> None:
    with serving(answers(sure(3))) as server:
        Path("rubric.md").write_text(RUBRIC)
        judge = LLMJudge("m", rubric=Path("rubric.md"), base_url=server.url)
        assert judge([Example(id="0", prompt="how?", completion="a\ud800")]) == [{"points": 3}]
    assert shown(server.seen[0])["reply"] == "a?"


def test_votes_are_the_mean_of_answers_drawn_from_fixed_seeds() -> None:
    def votes(asked: Asked) -> Reply:
        return Reply(several("7", "**8**", " 9\n", "1")) if asked.body["n"] == 4 else Reply({}, 500)

    asked = []
    for output in ("out.jsonl", "again.jsonl"):
        with serving(votes) as server:
            spec = {"scorer": "openai:m", "rubric": "rubric.md", "base_url": server.url, "votes": 4}
            assert scored(ONE, output=output, **spec).code == 0
        assert rewards(output) == [25 / 4]
        asked += [one.body for one in server.seen]
    assert asked[0] == asked[1]
    assert (asked[0]["temperature"], 0 <= asked[0]["seed"] < 2**31) == (1, True)
    assert "logprobs" not in asked[0]


def test_a_server_that_draws_one_at_a_time_is_asked_until_all_are_there() -> None:
    with serving(answers(several("1"), several("2", "6"), several("7"))) as server:
        spec = {"scorer": "openai:m", "rubric": "rubric.md", "base_url": server.url, "votes": 4}
        assert scored(ONE, **spec).code == 0
    assert rewards() == [16 / 4]
    assert [one.body.get("n") for one in server.seen] == [4, 3, None]
    assert len({one.body["seed"] for one in server.seen}) == 3


def test_a_server_that_draws_more_than_were_asked_for_is_asked_once() -> None:
    assert judged([several("1", "3", "9", "9")], votes=2) == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (several("7", "I cannot", "3"), "answered 'I cannot', expected one digit from 0 to 9"),
        (several("7", "77", "3"), "answered '77', expected"),
        ({"choices": [*several("7", "8")["choices"], *chat(None, refusal="no")["choices"]]}, "the model refused: 'no'"),
    ],
)
def test_one_vote_that_is_no_digit_is_a_failure(answer: Row, reason: str) -> None:
    assert reason in judged([answer], votes=3)


def newer(asked: Asked) -> Reply:
    """Answer as a model does that thinks first."""
    if "max_tokens" in asked.body:
        return error(400, "Unsupported parameter: 'max_tokens' is not supported with this model. Use"
                     " 'max_completion_tokens' instead.", "unsupported_parameter")  # fmt: skip
    return Reply(several("4", "5"))


def test_a_model_that_wants_the_newer_name_of_a_limit_refuses_one_request_and_has_room_to_think() -> None:
    rows = [example(number) for number in range(40)]
    with serving(newer) as server:
        spec = {"scorer": "openai:m", "rubric": "rubric.md", "base_url": server.url, "votes": 2}
        assert scored(rows, **spec).code == 0
    assert rewards() == [4.5] * 40
    assert ["max_tokens" in one.body for one in server.seen] == [True] + [False] * 40
    assert {one.body.get("max_completion_tokens") for one in server.seen[1:]} == {4096}


# --- reward models that answer 1 or 0


def verdict(script: Any) -> Any:
    with serving(answers(script)) as server:
        outcome = scored(ONE, "--on-bad-row", "skip", scorer="binary:ft:m", base_url=server.url)
    assert outcome.code == int(not rewards()), outcome.err
    (asked,) = server.seen
    assert (asked.body["model"], asked.body["messages"]) == ("ft:m", verdict_messages("Question 0?", "Answer 0."))
    return rewards()[0] if rewards() else reasons()["e0"]


REST = {f"t{number}": 1e-6 for number in range(18)}


@pytest.mark.parametrize(
    ("listed", "reward"),
    [
        ({"1": 0.6, "0": 0.3}, 0.6 / 0.9),
        ({"0": 0.75, "1": 0.15, " 1": 0.1}, 0.25),
        ({"1": 0.9999, **REST}, 0.9999 / (0.9999 + 1e-6)),
        ({"0": 0.9999, **REST}, 1e-6 / (0.9999 + 1e-6)),
    ],
)
def test_a_verdict_is_the_share_of_the_1(listed: dict[str, float], reward: float) -> None:
    assert verdict(chat("1", place("1", listed))) == pytest.approx(reward, abs=1e-12)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (chat("1"), "the server returned no logprobs, which this scorer needs"),
        (chat("1", place("1", {"1": 0.9, "yes": 0.01})), "0 is not among the 2 tokens that the server lists, but may"),
        (chat("0", place("0", {"0": 1.0})), "1 is not among the 1 tokens"),
        (
            chat("The", place("The", {"The": 0.9, "1": 0.05})),
            "1 and 0 together have a probability of 0.05: the model was not",
        ),
        (chat("The", place("The", {"The": 0.9})), "1 and 0 together have a probability of 0: the model was not"),
        (chat(None, refusal="no"), "the model refused: 'no'"),
    ],
)
def test_an_answer_that_is_no_verdict_is_a_failure(answer: Row, reason: str) -> None:
    assert reason in verdict(answer)


# --- what is refused before anybody is asked


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"scorer": "openai:m"}, "a: a judge needs `rubric:`, a file that says what a good reply is"),
        ({"scorer": "openai:m", "rubric": "none.md"}, "none.md: the rubric cannot be read (No such file or directory)"),
        ({"scorer": "openai:m", "rubric": "empty.md"}, "empty.md: the rubric is empty"),
        ({"scorer": "openai:m", "rubric": "latin.md"}, "latin.md: the rubric cannot be read (it is not UTF-8)"),
        ({"scorer": "openai:m", "rubric": "rubric.md", "points": [0, 10]}, "a digit is one token in every vocabulary"),
        (
            {"scorer": "openai:m", "rubric": "rubric.md", "points": [5, 5]},
            "`points: [5, 5]` is not a range within 0 to 9",
        ),
        ({"scorer": "openai", "rubric": "rubric.md"}, "name the model behind the colon, as in openai:qwen3-8b"),
        ({"scorer": "binary:"}, "name the model behind the colon"),
        ({"scorer": "binary:m", "rubric": "rubric.md"}, "this scorer does not accept `rubric:` (it accepts base_url,"),
        ({"scorer": "binary:m", "base_url": f"http://me:{KEY}@h/v1"}, "a server's address is like http://127.0.0.1"),
        ({"scorer": "binary:m", "base_url": f"http://h/v1?key={KEY}"}, "a server's address is like http://127.0.0.1"),
        ({"scorer": "binary:m"}, "https://api.openai.com/v1 requires a key: set OPENAI_API_KEY, or name a"),
        (
            {"scorer": "binary:m", "api_key_env": "NOBODYS_KEY"},
            "environment variable NOBODYS_KEY for its key is not set",
        ),
        ({"scorer": "binary:m", "read": "probability"}, "a: `read: probability` is for scorers that return logits"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(spec: Row, reason: str) -> None:
    Path("empty.md").write_text(" \n")
    Path("latin.md").write_bytes(b"\xe4")
    outcome = scored(ONE, **spec)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert reason in outcome.err
    assert KEY not in outcome.err
    assert not names(Path.cwd()) & {"out.jsonl", "out.jsonl.rejected.jsonl"}


def test_a_judge_travels_before_it_is_asked(tmp_path: Path) -> None:
    (tmp_path / "rubric.md").write_text(RUBRIC)
    for one in (LLMJudge("m", rubric=tmp_path / "rubric.md", votes=3), Verdict("m", timeout=3)):
        other = pickle.loads(pickle.dumps(one))
        assert (other.traits, other.chat.client.timeout) == (one.traits, one.chat.client.timeout)


def test_another_rubric_asks_its_own_reward_again_and_no_other() -> None:
    Path("first.md").write_text("Be kind.")
    Path("second.md").write_text("Be short.")
    rows = [example(number) for number in range(5)]
    with serving(answers(sure(3))) as server:
        spec = {"scorer": "openai:m", "base_url": server.url}
        both = {name: {**spec, "rubric": f"{name}.md"} for name in ("first", "second")}
        assert scored_all(rows, both).code == 0
        assert len(server.seen) == 10
        Path("second.md").write_text("Be brief.")
        refused = call("score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl", "-q")
        assert (refused.code, "scorers.second was" in refused.err) == (2, True)
        assert scored_all(rows, both, output="more.jsonl").code == 0
    assert [one.body["messages"][0]["content"][:9] for one in server.seen[10:]] == ["Be brief."] * 5


def test_another_timeout_or_key_goes_on_with_the_same_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", KEY)
    with serving(answers(sure(3))) as server:
        spec = {"scorer": "openai:m", "rubric": "rubric.md", "base_url": server.url}
        assert scored(ONE, **spec).code == 0
        assert scored(ONE, **spec, timeout=5, api_key_env="MINE").code == 0
    assert len(server.seen) == 1


def test_many_threads_share_one_client() -> None:
    eight = threading.Barrier(8, timeout=20)

    def together(asked: Asked) -> Reply:
        if "Answer 0." not in asked.body["messages"][1]["content"]:
            eight.wait()  # eight requests are under way at the same time, once one was answered
        return Reply(sure(3))

    with serving(together) as server:
        rows = [example(number) for number in range(9)]
        assert scored(rows, scorer="openai:m", rubric="rubric.md", base_url=server.url).code == 0
    assert server.most == 8
