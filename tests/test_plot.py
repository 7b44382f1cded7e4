"""plot: pictures of the right kind, whatever rewards are called."""

import json
from pathlib import Path
from typing import Any

import pytest
from toolbox import Bench, call, example, names, write

from irlhf.plot import PlotSettings, plot

ODD_NAMES = ["$x^{$", "a_b", "100%", "\\frac", "{}", "<script>alert(1)</script>", "_hidden", "größe"]
MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def evaluation(*rewards: str, name: str = "policy", points: int = 200, within: bool = True) -> dict[str, Any]:
    """An eval.json of the shape that `irlhf eval` writes."""
    track = {"spearman": figure(0.8), "pearson": figure(0.7)}
    found = {
        "n": points,
        "prompts": 50,
        "pooled": track,
        "within": {**(track if within else {}), "prompts": 50},
        "error": {"mean_absolute": figure(0.1), "floor_permuted": 0.3, "floor_constant": 0.25},
        "actual": figure(0.5),
        "asked": figure(0.5),
        "points": [[i / points, (i * 7 % points) / points] for i in range(points)],
    }
    policy = {"name": name, "baseline": "", "samples": points, "tokens": 10.0, "entropy": 1.5, "unfinished": 0}
    return {
        "version": 1,
        "samples": ["s.jsonl"],
        "settings": {"policies": [], "resamples": 100, "seed": 0},
        "policies": {"0123456789ab": {**policy, "rewards": dict.fromkeys(rewards, found)}},
        "tradeoff": [],
    }


def test_each_file_gives_its_picture(bench: Bench) -> None:
    Path("eval.json").write_text(json.dumps(evaluation("short", "colour")))
    plot(["eval.json", bench.scored, bench.policy], "plots")
    assert {"target-actual.png", "distribution.png", "training-policy.png"} <= names(Path("plots"))


@pytest.mark.parametrize("kind", sorted(MAGIC))
def test_pictures_are_of_the_kind_asked_for(kind: Any) -> None:
    Path("eval.json").write_text(json.dumps(evaluation("short")))
    summary = plot(["eval.json"], "plots", PlotSettings(format=kind))
    assert [Path(one).name for one in summary["pictures"]] == [f"target-actual.{kind}"]
    assert all(Path(one).read_bytes().startswith(MAGIC[kind]) for one in summary["pictures"])


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_of_any_signs_is_drawn(name: str) -> None:
    Path("eval.json").write_text(json.dumps(evaluation(name, name=name)))
    write(Path("scored.jsonl"), [example(i, rewards={name: float(i % 7)}) for i in range(30)])
    summary = plot(["eval.json", "scored.jsonl"], "plots")
    assert len(summary["pictures"]) == 2


def test_text_in_the_report_is_never_markup() -> None:
    hostile = "<img src=x onerror=alert(1)>"
    Path("eval.json").write_text(json.dumps(evaluation("<b>x</b>", name="<b>x</b>")))
    asked = {"policy": "0123456789ab", "rewards": {"short": 1.0}, "asked": {"short": 0.5}}
    write(Path("samples.jsonl"), [example(i, prompt=hostile, completion=hostile, **asked) for i in range(5)])
    plot(["eval.json", "samples.jsonl"], "plots")
    page = Path("plots/report.html").read_text()
    assert "<img src=x" not in page
    assert "<b>x</b>" not in page


def test_equal_data_gives_equal_pictures() -> None:
    Path("eval.json").write_text(json.dumps(evaluation("short")))
    for folder in ("one", "two"):
        plot(["eval.json"], folder, PlotSettings(format="svg"))
    one, two = (Path(folder, "target-actual.svg").read_text().split("\n") for folder in ("one", "two"))
    assert [line for line in one if "<dc:date>" not in line] == [line for line in two if "<dc:date>" not in line]


@pytest.mark.parametrize(("points", "within"), [(1, False), (2, True), (5000, True)])
def test_any_number_of_points_is_drawn(points: int, within: bool) -> None:
    Path("eval.json").write_text(json.dumps(evaluation("short", points=points, within=within)))
    assert plot(["eval.json"], "plots")["pictures"]


def test_a_reward_that_is_constant_is_drawn() -> None:
    write(Path("scored.jsonl"), [example(i, rewards={"a": 1.0, "b": float(i)}) for i in range(5)])
    assert plot(["scored.jsonl"], "plots")["pictures"]


def test_files_of_one_kind_keep_their_pictures_apart() -> None:
    for name in ("a", "b", "c"):
        Path(name).mkdir()
        write(Path(name, "scored.jsonl"), [example(i, rewards={name: float(i)}) for i in range(5)])
    summary = plot(["a/scored.jsonl", "b/scored.jsonl", "c/scored.jsonl"], "plots")
    assert len(set(summary["pictures"])) == 3


def test_rows_without_rewards_are_nothing_to_draw() -> None:
    write(Path("scored.jsonl"), [example(i, rewards={}) for i in range(5)])
    outcome = call("plot", "scored.jsonl", "-o", "plots")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)


def test_a_file_in_the_way_of_the_folder_is_refused() -> None:
    Path("eval.json").write_text(json.dumps(evaluation("short")))
    Path("plots").write_text("precious")
    assert call("plot", "eval.json", "-o", "plots").code == 2
    assert Path("plots").read_text() == "precious"


def test_the_pictures_leave_the_callers_settings_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    Path("eval.json").write_text(json.dumps(evaluation("short")))
    plot(["eval.json"], "plots")
    assert dict(matplotlib.rcParams) == before
