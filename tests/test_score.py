"""score: numbers from rules, columns and your own functions, or the reason why there is none."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from helpers import Row, call, example, names, process, read, write

from irlhf.core.errors import BackendError, ConfigError, DataError, IrlhfError
from irlhf.policy.recorded_rewards import read_recorded
from irlhf.scoring.score import score
from irlhf.scoring.settings import ScoreSettings


@pytest.fixture(autouse=True)
def _own_scorers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of a user's scorers beside the data."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
    Path("mine.py").write_text(
        "import numpy, torch\n"
        "from irlhf.scoring.scorers.base import Failure\n"
        "NUMBER = 3\n"
        "def words(examples): return [len(one.completion.split()) for one in examples]\n"
        "def times(examples, factor): return [factor * one for one in words(examples)]\n"
        "class Offset:\n"
        "    def __init__(self, by=0.0): self.by = by\n"
        "    def __call__(self, examples): return (self.by + one for one in words(examples))\n"
        "def array(examples): return numpy.array(words(examples), dtype='float32')\n"
        "def tensor(examples): return torch.tensor(words(examples))\n"
        "def several(examples):\n"
        "    with open('asked', 'a') as file: print('asked', end='', file=file)\n"
        "    return [{'one': 1, 'half': numpy.float32(0.5)} for _ in examples]\n"
        "def few(examples): return [1.0]\n"
        "def nothing(examples): return None\n"
        "def nan(examples): return [float('nan') if one.id == 'e1' else 1.0 for one in examples]\n"
        "def yes(examples): return [True for _ in examples]\n"
        "def text(examples): return ['good' for _ in examples]\n"
        "def failing(examples): return [Failure('too rude') if one.id == 'e1' else 2.0 for one in examples]\n"
        "def broken(examples): return [1 / 0 for _ in examples]\n"
    )


def scored(rows: list[Row], rewards: Any, **settings: Any) -> list[Row]:
    write(Path("in.jsonl"), rows)
    Path("rewards.yaml").write_text(json.dumps({"rewards": rewards} if "rewards" not in rewards else rewards))
    score("in.jsonl", "rewards.yaml", "out.jsonl", ScoreSettings(**settings))
    return read(Path("out.jsonl"))


def rewards_of(rows: list[Row], **spec: Any) -> list[float]:
    return [row["rewards"]["a"] for row in scored(rows, {"a": spec})]


ROWS = [example(0, completion="one"), example(1, completion="one two"), example(2, completion=" a\u2003b\nc ")]


def test_length_counts_words() -> None:
    assert rewards_of(ROWS, scorer="length") == [1, 2, 3]


def test_length_counts_the_words_of_all_messages() -> None:
    said = [{"role": "assistant", "content": "one two"}, {"role": "assistant", "content": "three"}]
    assert rewards_of([example(completion=said)], scorer="length") == [3]


@pytest.mark.parametrize(
    ("column", "value", "reward"),
    [
        ("n", {"n": 2}, 2),
        ("n", {"n": -0.5}, -0.5),
        ("n", {"n": True}, 1),
        ("n", {"n": False}, 0),
        ("scores.fun.mean", {"scores": {"fun": {"mean": 3.5}}}, 3.5),
    ],
)
def test_a_column_is_read(column: str, value: Row, reward: float) -> None:
    assert rewards_of([example(**value)], column=column) == [reward]


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("helpfulnes", {"helpfulness": 1}, "no column 'helpfulnes'; did you mean 'helpfulness'?"),
        ("scores.fun", {"scores": {"sad": 1}}, "no column 'scores.fun'"),
        ("n.m", {"n": 1}, "no column 'n.m'"),
        ("n", {"n": "1,5"}, "column 'n' holds '1,5', not a number"),
        ("n", {"n": None}, "column 'n' holds None"),
        ("n", {"n": [1]}, "column 'n' holds [1]"),
        ("n", {"n": 10**400}, "column 'n' holds 1000"),
        ("n", {"n": 1e300}, "column 'n' holds 1e+300"),
    ],
)
def test_a_column_that_holds_no_number_is_a_data_error(column: str, value: Row, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        rewards_of([example(**value)], column=column)
    assert str(caught.value).startswith("e0: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("scorer", "options", "rewards"),
    [
        ("mine:words", {}, [1, 2, 3]),
        ("mine:times", {"factor": 3}, [3, 6, 9]),
        ("mine:Offset", {}, [1, 2, 3]),
        ("mine:Offset", {"by": 0.5}, [1.5, 2.5, 3.5]),
        ("mine:array", {}, [1, 2, 3]),
        ("mine:tensor", {}, [1, 2, 3]),
    ],
)
def test_a_function_or_class_of_yours_is_asked(scorer: str, options: Row, rewards: list[float]) -> None:
    assert rewards_of(ROWS, scorer=scorer, options=options) == rewards


def test_a_function_may_give_several_numbers_and_is_asked_once_for_all() -> None:
    spec = {name: {"scorer": "mine:several", "label": label} for name, label in (("a", "one"), ("b", "half"))}
    assert scored(ROWS[:1], spec)[0]["rewards"] == {"a": 1, "b": 0.5}
    assert Path("asked").read_text() == "asked"


@pytest.mark.parametrize(
    ("label", "reason"), [("", r"2 numbers \(one, half\); choose one with `label:`"), ("ohne", "did you mean 'one'")]
)
def test_one_of_several_numbers_is_named(label: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        scored(ROWS[:1], {"a": {"scorer": "mine:several", **({"label": label} if label else {})}})


@pytest.mark.parametrize(
    ("scorer", "options", "error", "reason"),
    [
        ("mymod:fn", {}, ConfigError, "scorer 'mymod:fn': no module 'mymod' in this folder or in that of rewards.yaml"),
        ("sentimant:x", {}, ConfigError, "and none is installed; did you mean the scorer 'sentiment'?"),
        ("lenght", {}, ConfigError, "a: unknown scorer 'lenght'; did you mean 'length'?"),
        ("", {}, ConfigError, "needs either"),
        (":", {}, ConfigError, "unknown scorer ':'"),
        (":x", {}, ConfigError, "scorer ':x'"),
        ("..up:x", {}, ConfigError, "scorer '..up:x'"),
        ("nowhere.to:be", {}, ConfigError, "no module 'nowhere.to' in this folder"),
        ("mine:wrods", {}, ConfigError, "module mine has no 'wrods'"),
        ("mine:NUMBER", {}, ConfigError, "neither a function nor a class"),
        ("mine:Offset", {"bye": 1}, ConfigError, "unexpected keyword argument 'bye'"),
        ("mine:few", {}, BackendError, "returned 1 replies for 3 examples"),
        ("mine:nothing", {}, BackendError, "the scorer failed with TypeError"),
        ("mine:times", {}, BackendError, "missing 1 required positional argument: 'factor'"),
        ("mine:broken", {}, BackendError, "ZeroDivisionError: division by zero (mine.py:"),
        ("mine:nan", {}, BackendError, "e1: reward 'a' is nan, not a finite number"),
        ("mine:yes", {}, BackendError, "e0: reward 'a' is True"),
        ("mine:text", {}, BackendError, "e0: reward 'a' is 'good'"),
        ("mine:failing", {}, BackendError, "e1: too rude; use --on-bad-row skip"),
    ],
)
def test_a_scorer_that_cannot_answer_stops_the_run(
    scorer: str, options: Row, error: type[IrlhfError], reason: str
) -> None:
    with pytest.raises(error) as caught:
        rewards_of(ROWS, scorer=scorer, options=options)
    assert reason in str(caught.value)
    assert not Path("out.jsonl").exists()


def test_a_scorer_of_an_installed_package_has_its_name_alone(tmp_path: Path) -> None:
    offered = tmp_path / "theirs-1.dist-info"
    offered.mkdir()
    (offered / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (offered / "entry_points.txt").write_text("[irlhf.scorers]\nwordy = mine:words\n")
    assert rewards_of(ROWS, scorer="wordy") == [1, 2, 3]
    with pytest.raises(ConfigError, match="a: scorer 'wordy' accepts nothing after its name; set its parameters in"):
        rewards_of(ROWS, scorer="wordy:fast")


def test_a_module_that_does_not_parse_is_named() -> None:
    Path("wrong.py").write_text("def f(:\n")
    with pytest.raises(ConfigError, match="scorer 'wrong:f': SyntaxError"):
        rewards_of(ROWS, scorer="wrong:f")


@pytest.mark.parametrize(("scorer", "reason"), [("mine:nan", "reward 'a' is nan"), ("mine:failing", "too rude")])
def test_skipped_failures_keep_their_reason(scorer: str, reason: str) -> None:
    found = scored(ROWS, {"a": {"scorer": scorer}}, on_bad_row="skip")
    (failed,) = read(Path("out.jsonl.rejected.jsonl"))
    assert [row["id"] for row in found] == ["e0", "e2"]
    assert failed["where"] == "e1"
    assert failed["reason"].startswith(reason)
    assert failed["row"] == ROWS[1]


def test_rows_that_cannot_be_read_are_skipped_too_and_the_account_closes() -> None:
    Path("in.jsonl").write_text('{"id": 1}\nnot json\n' + json.dumps(example(1)) + "\n" + json.dumps(example(2)) + "\n")
    Path("rewards.yaml").write_text("rewards: {a: {scorer: 'mine:failing'}}")
    outcome = call("score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl", "--on-bad-row", "skip", "--json")
    summary = json.loads(outcome.out)
    assert (summary["written"], summary["rejected"]) == (1, 3)
    assert len(read(Path("out.jsonl.rejected.jsonl"))) == 3


def test_a_bad_row_is_found_before_anybody_is_asked() -> None:
    Path("mine.py").write_text("def words(examples): open('asked', 'w')")
    Path("in.jsonl").write_text(json.dumps(example(1)) + "\n" + json.dumps({"id": "e2"}) + "\n")
    Path("rewards.yaml").write_text("rewards: {a: {scorer: 'mine:words'}}")
    with pytest.raises(DataError, match=r"in\.jsonl:2: no 'prompt'"):
        score("in.jsonl", "rewards.yaml", "out.jsonl")
    Path("in.jsonl").write_text(json.dumps(example(1, x=1)) + "\n" + json.dumps(example(2)) + "\n")
    Path("rewards.yaml").write_text("rewards: {a: {scorer: 'mine:words'}, x: {column: x}, y: {column: given}}")
    with pytest.raises(DataError, match=r"e1: no column 'given' \(available: x\); use --on-bad-row skip"):
        score("in.jsonl", "rewards.yaml", "out.jsonl")
    assert names(Path.cwd()) == {"mine.py", "in.jsonl", "rewards.yaml"}


def test_unknown_keys_and_other_rewards_survive_score() -> None:
    extra = {"odd key": None, "nested": {"a": [1, {"b": "\u2028"}]}, "n": 10**30, "flag": False}
    drawn = {"temperature": 0.5, "top_k": 7}
    row = example(0, rewards={"old": 1.5, "a": 9}, gold={"g": 1}, split="test", decoding=drawn, **extra)
    (found,) = scored([row], {"a": {"scorer": "length"}})
    assert found == {**row, "rewards": {"old": 1.5, "a": 2.0}}


def test_gold_fills_gold_alone() -> None:
    spec = {"rewards": {"a": {"scorer": "mine:broken"}}, "gold": {"a": {"scorer": "length"}}}
    (found,) = scored([example(0, rewards={"a": 7})], spec, gold=True)
    assert (found["rewards"], found["gold"]) == ({"a": 7}, {"a": 2.0})


def test_gold_without_gold_scorers_is_refused() -> None:
    with pytest.raises(ConfigError, match="no `gold:` in this file"):
        scored([example()], {"a": {"scorer": "length"}}, gold=True)


def test_limit_scores_the_first_rows() -> None:
    assert [row["id"] for row in scored(ROWS, {"a": {"scorer": "length"}}, limit=2)] == ["e0", "e1"]


def test_a_changed_weight_or_scorer_is_refused_by_name() -> None:
    scored(ROWS, {"a": {"scorer": "length"}})
    with pytest.raises(ConfigError, match=r"rewards\.a\.scorer was length and is mine:words"):
        scored(ROWS, {"a": {"scorer": "mine:words"}})


def test_rows_come_in_the_order_of_the_input_over_many_chunks() -> None:
    rows = [example(i) for i in range(300)]
    assert [row["id"] for row in scored(rows, {"a": {"scorer": "length"}})] == [f"e{i}" for i in range(300)]


def test_memory_does_not_grow_with_the_rows_but_for_their_ids() -> None:
    Path("rewards.yaml").write_text("rewards: {a: {scorer: length}}")
    peaks = []
    for count in (600, 600, 4600):  # the first time pays for what is loaded
        write(Path("in.jsonl"), (example(i, prompt="why " * 50) for i in range(count)))
        tracemalloc.start()
        score("in.jsonl", "rewards.yaml", f"out{len(peaks)}.jsonl")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 100 * 4000


def test_stdin_to_stdout_needs_no_file() -> None:
    Path("rewards.yaml").write_text("rewards: {a: {scorer: length}}")
    given = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
    done = process("score", "-", "-r", "rewards.yaml", "-o", "-", given=given)
    assert done.returncode == 0
    assert [json.loads(line)["rewards"]["a"] for line in done.stdout.split(b"\n")[:-1]] == [1, 2, 3]
    assert names(Path.cwd()) == {"mine.py", "rewards.yaml"}


def test_a_function_is_found_beside_the_rewards_that_name_it(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "besides.py").write_text("def ones(examples):\n    return [1 for _ in examples]\n")
    (folder / "rewards.yaml").write_text('rewards:\n  one: {scorer: "besides:ones"}\n')
    write(Path("examples.jsonl"), [example(1)])
    outcome = call("score", "examples.jsonl", "-r", folder / "rewards.yaml", "-o", "scored.jsonl")
    assert outcome.code == 0, outcome.err
    assert read(Path("scored.jsonl"))[0]["rewards"] == {"one": 1}


@pytest.mark.parametrize(
    ("column", "value", "number"),
    [
        ("scores.quality", {"scores.quality": 3}, 3),
        ("scores.quality", {"scores": {"quality": 3}}, 3),
        ("n", {"n": " 0.5"}, 0.5),
        ("good", {"good": "True"}, 1),
        ("target", {"given_target": 4}, 4),
    ],
)
def test_a_column_is_read_by_its_whole_name_its_path_and_as_text(column: str, value: Row, number: float) -> None:
    assert rewards_of([example(**value)], column=column) == [number]


def test_a_command_that_sets_all_rows_aside_fails() -> None:
    Path("in.jsonl").write_text(json.dumps(example(1)) + "\n")
    Path("rewards.yaml").write_text("rewards: {x: {column: x}}")
    outcome = call("score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl", "--on-bad-row", "skip")
    assert outcome.code == 1
    assert "no row is left, because all 1 were rejected; out.jsonl.rejected.jsonl has the reasons" in outcome.err
    assert "next:" not in outcome.err


def test_the_summary_does_not_go_among_the_rows_on_stdout() -> None:
    Path("in.jsonl").write_text(json.dumps(example(1)) + "\n")
    Path("rewards.yaml").write_text("rewards: {a: {scorer: length}}")
    outcome = call("score", "in.jsonl", "-r", "rewards.yaml", "-o", "-", "--json")
    assert [json.loads(line)["id"] for line in outcome.out.splitlines()] == ["e1"]
    assert json.loads(outcome.err.splitlines()[-1])["finished"] is True


def test_the_next_line_names_the_rewards_file_that_was_used() -> None:
    Path("in.jsonl").write_text(json.dumps(example(1)) + "\n" + json.dumps(example(2)) + "\n")
    Path("mine.yaml").write_text("rewards: {a: {scorer: length}}")
    outcome = call("score", "in.jsonl", "-r", "mine.yaml", "-o", "out.jsonl")
    assert "next: irlhf finetune out.jsonl -r mine.yaml" in outcome.err


def test_another_direction_is_recorded_without_scoring_again() -> None:
    Path("in.jsonl").write_text(json.dumps(example(1)) + "\n")
    for direction in ("higher", "lower"):
        Path("rewards.yaml").write_text(f"rewards: {{a: {{scorer: length, direction: {direction}}}}}")
        summary = score("in.jsonl", "rewards.yaml", "out.jsonl")
        recorded = read_recorded(Path("out.jsonl"))
        assert recorded.rewards is not None
        assert recorded.rewards.rewards["a"].direction == direction
    assert (summary["finished"], summary["already_finished"]) == (True, True)
    assert recorded.scorers["a"].startswith("length@")
