"""What a policy can reach and how to ask it: measured by eval --calibrate, kept in policy.json."""

import json
from pathlib import Path
from typing import Any

import pytest
from toolbox import Bench

from irlhf.errors import DataError
from irlhf.policy import Achieved, Calibration, Policy, Reach, read_policy, write_calibration

MEASURED = Calibration(
    reach={"short": Reach(0.1, 0.8, (0.1, 0.4, 0.8), (0.2, 0.5, 0.7)), "colour": Reach(0, 1)},
    achieved=(Achieved({"short": 0.5}, {"short": 16.2, "colour": 3.0}, 40),),
    decoding={"temperature": 1.0},
    samples=400,
    prompts=40,
    splits={"validation": 400},
)


def copied(bench: Bench) -> Path:
    """A folder with the bench's policy.json alone, which may be written to."""
    folder = Path("policy")
    folder.mkdir()
    (folder / "policy.json").write_bytes((bench.policy / "policy.json").read_bytes())
    return folder


def changed(folder: Path, change: dict[str, Any]) -> Policy:
    """Put keys into a policy.json as another hand would, and read it."""
    card = json.loads((folder / "policy.json").read_text())
    (folder / "policy.json").write_text(json.dumps({**card, **change}))
    return read_policy(folder)


def test_a_reach_holds_what_is_wanted() -> None:
    assert [Reach(0.1, 0.8)(wanted) for wanted in (-1, 0.1, 0.5, 0.9)] == [0.1, 0.1, 0.5, 0.8]


def test_a_map_is_asked_backwards() -> None:
    reach = Reach(0.1, 0.8, (0.1, 0.4, 0.9), (0.2, 0.5, 0.7))
    assert [reach(wanted) for wanted in (0, 0.2, 0.35, 0.5, 0.6, 1)] == pytest.approx([0.1, 0.1, 0.25, 0.4, 0.65, 0.8])


def test_what_was_measured_comes_back_as_it_was(bench: Bench) -> None:
    folder = copied(bench)
    assert read_policy(folder).calibration is None
    write_calibration(folder, MEASURED)
    policy = read_policy(folder)
    assert policy.calibration == MEASURED
    assert policy.to_json()["calibration"] == MEASURED.to_json()


def test_measuring_a_policy_makes_no_other_of_it(bench: Bench) -> None:
    folder = copied(bench)
    before = changed(folder, {"from": "a later version"})
    write_calibration(folder, MEASURED)
    assert read_policy(folder).digest == before.digest
    card = json.loads((folder / "policy.json").read_text())
    assert card.pop("calibration")
    assert card == {**json.loads((bench.policy / "policy.json").read_text()), "from": "a later version"}
    assert before.digest != read_policy(bench.policy).digest


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("reach",), [], "no attribute"),
        (("reach", "short", "high"), 0.1, "a reach from 0.1 to 0.1"),
        (("reach", "short", "low"), "0", "'0' is no number"),
        (("reach", "short", "xs"), [0.1, 0.4], "does not rise"),
        (("reach", "short", "xs"), [0.1, 0.1, 0.4], "does not rise"),
        (("reach", "short", "ys"), [0.2, 0.5, 0.4], "does not rise"),
        (("reach", "shirt"), {"low": 0, "high": 1, "xs": [], "ys": []}, "unknown reward 'shirt'"),
        (("achieved", 0, "asked"), {"shirt": 1}, "unknown reward"),
        (("achieved", 0, "rewards"), {}, "brought nothing"),
        (("achieved", 0, "n"), True, "True is no count"),
        (("decoding",), {"temperature": None}, "None is no number"),
        (("splits",), {"validation": -1}, "-1 is no count"),
        (("prompts",), 0.5, "0.5 is no count"),
    ],
)
def test_a_damaged_calibration_says_what_to_do(
    path: tuple[str | int, ...], value: object, told: str, bench: Bench
) -> None:
    tree: Any = json.loads(json.dumps(MEASURED.to_json()))
    inner = tree
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(DataError, match=r"delete that key, then measure again") as raised:
        changed(copied(bench), {"calibration": tree})
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
