"""Every raw format: recognition of its rows, the resulting examples, and no traceback for damaged rows."""

import copy
import dataclasses
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzz import Watch, examine, hold_blocks, hold_files, hold_typed
from helpers import ROOT, call, read, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_rows import ASKED, BAD, GOOD, ROWS, USER, several

from irlhf.core.errors import DataError
from irlhf.core.example import Example, Where, dumps, from_json
from irlhf.core.hashing import fingerprint
from irlhf.core.pairs import pairs_of
from irlhf.core.registry import FORMATS
from irlhf.data.formats.base import Row, find_format, formats
from irlhf.data.prepare import prepare
from irlhf.data.settings import PrepareSettings
from irlhf.io.jsonl import DEPTH_LIMIT, Broken, checked, parse_row

FUZZ = int(os.environ.get("IRLHF_FUZZ_EXAMPLES") or 30)  # a format
FUZZED = settings(max_examples=FUZZ, deadline=None, suppress_health_check=list(HealthCheck), database=None)
HERE = Where("raw.jsonl", 1)

# Label and completion of each example, in order, by row of ROWS.
BOTH = [("chosen", GOOD["content"]), ("rejected", BAD["content"])]
TURNED = [BOTH[1], BOTH[0]]
MADE: dict[str, list[tuple[str, str]]] = {
    "hh": [("chosen", "Air scatters it."), ("rejected", "It is painted.")],
    "red-team": [("", "Yes.")],
    "helpsteer3": BOTH,
    "helpsteer2-preference": TURNED,
    "helpsteer": [("", GOOD["content"])],
    "ultrafeedback": BOTH,
    "ultrafeedback-binarized": BOTH,
    "argilla": BOTH,
    "oasst-trees": [*TURNED, ("", "Little light is left.")],
    "oasst": [],
    "shp": BOTH,
    "pku-saferlhf": TURNED,
    "nectar": [BOTH[0], ("rejected", "Air does it."), BOTH[1]],
    "nemo-rl": TURNED,
    "arena": TURNED,
    "summarize": [("chosen", " Blue sky."), ("rejected", " Rain.")],
    "openai-dpo": BOTH,
    "steerlm": [("", GOOD["content"]), ("", "Yes.")],
    "sharegpt": [("", GOOD["content"])],
    "rewardbench2": [*BOTH, ("rejected", "No idea."), ("rejected", "Paint.")],
    "rewardbench": BOTH,
    "alpaca": [("", GOOD["content"])],
    "trl-preference": BOTH,
    "trl-unpaired": BOTH[:1],
    "trl-stepwise": [("", "Light scatters.\nSo it is green.")],
    "messages": [("", GOOD["content"])],
    "prompt-completion": [("", GOOD["content"])],
}
# Columns of the first example that can be `column:` rewards.
NUMBERS: dict[str, dict[str, float]] = {
    "red-team": {"rating": 1.0, "min_harmlessness_score_transcript": -1.25},
    "helpsteer3": {"overall_preference": -2},
    "helpsteer2-preference": {"preference_strength": 3},
    "helpsteer": {"helpfulness": 4, "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 2},
    "ultrafeedback": {"helpfulness": 5, "honesty": 5, "truthfulness": 5, "overall_score": 8.5},
    "ultrafeedback-binarized": {"score": 8.5},
    "argilla": {"avg_rating": 4.75},
    "oasst-trees": {"rank": 1, "review_count": 3},
    "shp": {"score": 340, "upvote_ratio": 0.98},
    "pku-saferlhf": {"better": 0, "safer": 0, "safe": 0, "severity_level": 2},
    "nectar": {"rank": 1},
    "nemo-rl": {"rank": 1},
    "trl-unpaired": {"desirable": 1},
    "trl-stepwise": {"right": 0.5},
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_realistic_row_is_recognised_and_becomes_its_examples(name: str) -> None:
    write(Path("raw.jsonl"), [ROWS[name]])
    summary = prepare(["raw.jsonl"], "out.jsonl")
    found = read(Path("out.jsonl"))
    assert summary["formats"]["raw.jsonl"].startswith(f"{name}, because of ")
    assert [(row.get("label", ""), row["completion"]) for row in found] == MADE[name]
    assert summary.get("rejected", 0) == (not MADE[name])
    for key, value in NUMBERS.get(name, {}).items():
        assert found[0][key] == value


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"oasst"}))
def test_preparing_prepared_examples_again_changes_nothing(name: str) -> None:
    write(Path("raw.jsonl"), [ROWS[name]])
    prepare(["raw.jsonl"], "out.jsonl")
    prepare(["out.jsonl"], "again.jsonl")
    assert read(Path("again.jsonl")) == read(Path("out.jsonl"))


@pytest.mark.parametrize("name", [name for name, made in MADE.items() if len({label for label, _ in made}) > 1])
def test_a_comparison_makes_pairs_that_share_a_group(name: str) -> None:
    write(Path("raw.jsonl"), [ROWS[name]])
    prepare(["raw.jsonl"], "out.jsonl")
    pairs, counts = pairs_of(from_json(row, HERE) for row in read(Path("out.jsonl")))
    labels = [label for label, _ in MADE[name]]
    assert len(pairs) == labels.count("chosen") * labels.count("rejected") > 0
    assert (counts["ungrouped"], counts["alone"], counts["equal"]) == (0, 0, 0)


def test_equal_prompts_share_a_group_and_keep_separate_pairs() -> None:
    row = ROWS["trl-preference"]
    write(Path("raw.jsonl"), [row, {**row, "rejected": [{**BAD, "content": "Paint."}]}])
    prepare(["raw.jsonl"], "out.jsonl")
    found = read(Path("out.jsonl"))
    group = f"raw-{fingerprint(json.dumps([USER], sort_keys=True)):016x}"
    assert {row["group"] for row in found} == {group}
    assert [row["pair"] for row in found] == ["raw-0", "raw-0", "raw-1", "raw-1"]


def test_every_format_matches_its_row_and_no_empty_row() -> None:
    for known in formats():
        assert known.matches(ROWS[known.name])
        assert not known.matches({})


def test_a_format_has_the_name_it_is_registered_under() -> None:
    assert [known.name for known in formats()] == list(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_reader_rejects_a_row_of_another_format_with_its_place(name: str) -> None:
    with pytest.raises(DataError, match=r"raw\.jsonl:1: "):
        list(find_format(name).read(Row(HERE, {"colour": 3}), "raw"))


def test_list_formats_shows_every_format_with_the_resulting_rows() -> None:
    outcome = call("prepare", "--list-formats")
    assert outcome.code == 0
    for known in formats():
        assert f"{known.name} " in outcome.out
        assert known.becomes in outcome.out


def test_docs_formats_lists_the_registered_formats() -> None:
    page = (ROOT / "docs" / "formats.md").read_text()
    rows = [line for line in page.split("\n") if line.startswith("| `")]
    cell = str.maketrans({"|": "\\|"})
    assert rows == [
        f"| `{one.name}` | {one.fields.translate(cell)} | {one.becomes.translate(cell)} |" for one in formats()
    ]


# Fuzz: rows near the shape of each format.


def nested(levels: int) -> Any:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


DEEP = DEPTH_LIMIT + 20  # levels, which no row may have
TEXTS = [
    "", " ", "N/A", "user", "gpt", "function_call", "3", "-1.5e3", "\n\nHuman: x\n\nAssistant: y", "\n\nAssistant:",
    "<s>", "\ud800", "\udc00\ud800", "\x00", "\u2028\x85\r\n", "\u202e\N{HERB}e\u0301", " " * 5000, "NaN", "[]",
    "null", "a\nb", '{"name": "f", "arguments": {"a": "\\ud800"}}', '{"name": "f", "arguments": [1, NaN]}', "tie",
    "model_a", "true",
]  # fmt: skip
PARTS = [value for row in ROWS.values() for value in row.values()]  # values of other columns and formats
KEYS = sorted({
    *(key for row in ROWS.values() for key in row), *(one.name for one in dataclasses.fields(Example)), "role",
    "content", "from", "value", "text", "tool_calls", "noted", "given_id", "score-chosen", "history", "kto_tag", "a\nb",
    "",
})  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.sampled_from([10**400, -(10**101), 2**63, 0, 1])
    | st.floats() | st.text(max_size=12) | st.text(st.characters(categories=("Cs", "Cc", "Zl", "Cf")), max_size=3)
    | st.sampled_from(TEXTS)
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inside, max_size=3),
    max_leaves=6,
)
GIVEN = JSON | st.sampled_from(PARTS) | st.sampled_from([1, 40, *range(DEPTH_LIMIT - 5, DEPTH_LIMIT), DEEP]).map(nested)


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a row."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield (*path, key)
        yield from places(one, (*path, key))


@st.composite
def near(draw: st.DrawFn, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with some values replaced, removed or renamed."""
    changed = copy.deepcopy(row)
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 3]))):
        path = draw(st.sampled_from([*places(changed)] or [("prompt",)]))
        holder: Any = changed
        for key in path[:-1]:
            holder = holder[key]
        damage(draw, holder, path[-1])
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        changed[draw(st.sampled_from(KEYS))] = draw(GIVEN)
    return changed


def damage(draw: st.DrawFn, holder: Any, key: Any) -> None:
    """Change the value of one key."""
    there = holder[key] if isinstance(holder, list) else holder.pop(key, None)
    match draw(st.integers(0, 7)):
        case 0:
            given: object = [there]
        case 1:
            given = {draw(st.sampled_from(KEYS)): there}
        case 2:
            given = json.dumps(there)  # as cells of a table hold it
        case 3 if isinstance(there, list):
            given = there * draw(st.integers(0, 2))
        case 4 if isinstance(there, dict | list):
            given = draw(st.sampled_from([*there.values()] if isinstance(there, dict) else there)) if there else []
        case 5:
            key = draw(st.sampled_from([*KEYS, str(key).upper(), f" {key}"])) if isinstance(holder, dict) else key
            given = there
        case 6 if isinstance(holder, dict):
            return
        case _:
            given = draw(GIVEN)
    holder[key] = copy.deepcopy(given)


def read_alone(name: str, fields: dict[str, Any]) -> None:
    """Check a reader on one row that a file can contain: examples or a DataError, and the row is unchanged."""
    if isinstance(checked(fields, HERE), Broken):
        return
    before = copy.deepcopy(fields)
    known = find_format(name)
    assert known.matches(fields) in (True, False)
    try:
        found = [*known.read(Row(HERE, fields), "raw")]
    except DataError as error:
        assert str(error).startswith("raw.jsonl:1: ")  # noqa: PT017 - an error is one of the outcomes
        return
    assert fields == before
    assert found
    for one in found:
        if isinstance(one, Example):
            assert from_json(parse_row(dumps(one.to_json()), HERE), HERE) == one


@pytest.mark.fuzz
@pytest.mark.timeout(0)  # each example has its own limit
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_rows_of_a_format_are_all_accounted_for(name: str, watch: Watch) -> None:
    path = Path("raw.jsonl")

    @FUZZED
    @given(st.tuples(*map(near, several(name))), st.booleans(), st.booleans())
    def check(rows: tuple[dict[str, Any], ...], named: bool, dropping: bool) -> None:
        for row in rows:
            read_alone(name, row)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        chosen = PrepareSettings(name if named else "auto", drop_duplicates=dropping)
        run = examine(watch, path, chosen)
        lot = zlib.crc32(path.read_bytes()) % 16
        if lot == 0:  # files cost ten times as much
            hold_files(path, chosen, run)
        elif lot == 1 and not dropping:
            hold_blocks(path, chosen, run)

    check()


@pytest.mark.fuzz
@pytest.mark.timeout(0)
@FUZZED
@given(
    st.lists(st.sampled_from(sorted(ROWS)).flatmap(lambda name: near(ROWS[name])), min_size=1, max_size=4),
    st.dictionaries(
        st.sampled_from(KEYS).filter(bool), st.sampled_from([*KEYS, "prompt.0.content", "chosen.1"]), max_size=2
    ),
    st.integers(0, 2),
)
def test_rows_read_equal_rows_written_plus_rejected_for_mixed_files(
    watch: Watch, rows: list[dict[str, Any]], names: dict[str, str], limit: int
) -> None:
    path = Path("raw.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = PrepareSettings(map=names, limit=limit)
    run = examine(watch, path, chosen)
    hold_files(path, chosen, run)
    hold_typed(path, chosen, run)


def test_a_tree_at_the_depth_limit_is_read() -> None:
    leaf: dict[str, Any] = {"message_id": "x", "role": "assistant", "text": ASKED, "replies": []}
    for number in range(DEPTH_LIMIT // 2 - 4):
        role = "prompter" if number % 2 == 0 else "assistant"
        leaf = {"message_id": f"{number}", "role": role, "text": "t", "replies": [leaf]}
    write(Path("raw.jsonl"), [{"message_tree_id": "t", "prompt": leaf}])
    assert prepare(["raw.jsonl"], "out.jsonl")["written"] > 20
