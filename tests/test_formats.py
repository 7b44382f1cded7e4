"""Every format that people have: what it is known by, what becomes of a row, and no traceback for what is near it."""

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rawrows import ASKED, BAD, GOOD, ROWS, USER
from toolbox import ROOT, call, read, write

from irlhf.errors import DataError
from irlhf.ids import fingerprint
from irlhf.pairs import pairs_of
from irlhf.prepare import PrepareSettings, prepare
from irlhf.prepare.clean import clean
from irlhf.prepare.formats import Known, Rejected, Row, detect, find_format, formats
from irlhf.records import Example, Where, from_json
from irlhf.registry import FORMATS
from irlhf.tables import DEPTH_LIMIT

FUZZ = int(os.environ.get("IRLHF_FUZZ_EXAMPLES") or 200)  # a format
HERE = Where("raw.jsonl", 1)

# Of each row of ROWS: label and completion of each example, in order.
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
# What of a row can be a `column:` reward of its first example.
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
def test_a_row_of_real_shape_is_known_and_becomes_its_examples(name: str) -> None:
    write(Path("raw.jsonl"), [ROWS[name]])
    summary = prepare(["raw.jsonl"], "out.jsonl")
    found = read(Path("out.jsonl"))
    assert summary["formats"]["raw.jsonl"].startswith(f"{name}, because of ")
    assert [(row.get("label", ""), row["completion"]) for row in found] == MADE[name]
    assert summary.get("rejected", 0) == 0
    for key, value in NUMBERS.get(name, {}).items():
        assert found[0][key] == value


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"oasst"}))
def test_an_example_of_any_format_is_read_again_as_itself(name: str) -> None:
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


def test_equal_prompts_share_a_group_and_their_pairs_are_told_apart() -> None:
    row = ROWS["trl-preference"]
    write(Path("raw.jsonl"), [row, {**row, "rejected": [{**BAD, "content": "Paint."}]}])
    prepare(["raw.jsonl"], "out.jsonl")
    found = read(Path("out.jsonl"))
    group = f"raw-{fingerprint(json.dumps([USER], sort_keys=True)):016x}"
    assert {row["group"] for row in found} == {group}
    assert [row["pair"] for row in found] == ["raw-0", "raw-0", "raw-1", "raw-1"]


def test_every_needed_column_is_named_by_its_format() -> None:
    for known in formats():
        assert known.reader.matches(ROWS[known.name])
        assert not known.reader.matches({})


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_that_is_named_refuses_another_shape_with_the_columns(name: str) -> None:
    with pytest.raises(DataError, match=r"raw\.jsonl:1: "):
        list(find_format(name).reader.read(Row(HERE, {"colour": 3}), "raw"))


def test_the_list_of_formats_shows_each_with_what_it_becomes() -> None:
    outcome = call("prepare", "--list-formats")
    assert outcome.code == 0
    for known in formats():
        assert f"{known.name} " in outcome.out
        assert known.reader.BECOMES in outcome.out


def test_the_page_of_formats_is_the_registry() -> None:
    page = (ROOT / "docs" / "formats.md").read_text()
    rows = [line for line in page.split("\n") if line.startswith("| `")]
    cell = str.maketrans({"|": "\\|"})
    assert rows == [
        f"| `{one.name}` | {one.reader.FIELDS.translate(cell)} | {one.reader.BECOMES.translate(cell)} |"
        for one in formats()
    ]


# Fuzz: rows near the shape of each format.

KEYS = ["role", "content", "from", "value", "text", "rank", "id", ""]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
    | st.sampled_from(["N/A", "user", "gpt", "\n\nHuman: x\n\nAssistant: y", "\n\nAssistant:", "3"]),
    lambda inside: st.lists(inside, max_size=3)
    | st.dictionaries(st.sampled_from(KEYS), inside, max_size=3),
    max_leaves=6,
)  # fmt: skip


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a row."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield (*path, key)
        yield from places(one, (*path, key))


@st.composite
def near(draw: st.DrawFn, row: dict[str, Any]) -> dict[str, Any]:
    """A row of which some places hold something else, or nothing."""
    changed = copy.deepcopy(row)
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from([*places(changed)] or [("prompt",)]))
        holder: Any = changed
        for key in path[:-1]:
            holder = holder[key]
        if draw(st.integers(0, 3)) == 0 and (path[-1] in holder if isinstance(holder, dict) else True):
            del holder[path[-1]]
        else:
            holder[path[-1]] = draw(JSON)
    if draw(st.booleans()):
        changed[draw(st.sampled_from(["id", "source", "group", "split", "label", "system", "tokens", "noted"]))] = draw(
            JSON
        )
    return changed


def results(known: Known, fields: dict[str, Any]) -> list[Example | Rejected]:
    """What `prepare` makes of a row, as long as it is no error."""
    gathered = getattr(known.reader, "gathered", iter)
    found: list[Example | Rejected] = []
    for row in gathered(iter([Row(HERE, fields)])):
        made = list(known.reader.read(row, "raw"))
        found += [clean(one, row.fields) if isinstance(one, Example) else one for one in made]
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_no_row_near_a_shape_ends_in_a_traceback(name: str) -> None:
    @settings(max_examples=FUZZ, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(near(ROWS[name]))
    def check(fields: dict[str, Any]) -> None:
        before = copy.deepcopy(fields)
        known = find_format(name)
        known.reader.matches(fields)
        try:
            detect(Row(HERE, fields))
            found = results(known, fields)
        except DataError as error:
            assert str(error).startswith("raw.jsonl:1: ")  # noqa: PT017 - an error is one of the outcomes
            return
        assert fields == before
        assert found or name.startswith("oasst")
        for one in found:
            if isinstance(one, Example):
                assert from_json(json.loads(json.dumps(one.to_json())), HERE) == one
                assert isinstance(one.prompt, str) or one.prompt[-1]["role"] in ("user", "tool")

    check()


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.lists(st.sampled_from(sorted(ROWS)).flatmap(lambda name: near(ROWS[name])), min_size=1, max_size=4))
def test_the_account_of_any_file_closes(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    source = write(folder / "raw.jsonl", rows)
    chosen = PrepareSettings(on_bad_row="skip")
    try:
        summary = prepare([source], folder / "out.jsonl", chosen)
    except DataError as error:
        assert "stands twice" in str(error)  # noqa: PT017 - the only error that skipping leaves
        return
    written = read(folder / "out.jsonl")
    aside = read(folder / "out.jsonl.rejected.jsonl") if summary.get("rejected") else []
    assert (summary.get("written", 0), summary.get("rejected", 0)) == (len(written), len(aside))
    assert all(one["reason"] and one["where"].startswith(str(source)) for one in aside)
    lines = {int(one["where"].rsplit(":", 1)[1]) for one in aside}
    assert written or lines or summary["formats"][str(source)].startswith("oasst")


def test_a_deep_tree_is_no_trouble() -> None:
    leaf: dict[str, Any] = {"message_id": "x", "role": "assistant", "text": ASKED, "replies": []}
    for number in range(DEPTH_LIMIT // 2 - 4):
        role = "prompter" if number % 2 == 0 else "assistant"
        leaf = {"message_id": f"{number}", "role": role, "text": "t", "replies": [leaf]}
    write(Path("raw.jsonl"), [{"message_tree_id": "t", "prompt": leaf}])
    assert prepare(["raw.jsonl"], "out.jsonl")["written"] > 20
