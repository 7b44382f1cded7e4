"""plot: the expected plots for any names of rewards and any set of measurements."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from evaluations import (
    NONE,
    POLICIES,
    Shape,
    evaluation,
    evaluation_of_pairs,
    interval,
    rounds,
    write_evaluation,
    write_rounds,
    write_samples,
)
from helpers import Bench, call, example, names, slow_after, write

from irlhf.core.registry import PICTURES
from irlhf.plotting import costs as costs_plot
from irlhf.plotting.plot import plot
from irlhf.plotting.settings import PlotSettings
from irlhf.plotting.style import compared

ODD_NAMES = ("$x^{$", "a_b", "100%", "\\frac", "{}", "<script>", "_hidden", "größe", "你好 🙂", "a\nb", "", "x" * 99)
MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
OF_EVALUATIONS = {"target-actual", "gold", "at-least", "crosstalk", "tradeoff", "profile", "price", "comparison"}
OF_ROUNDS = {"rounds", "rounds-target-actual", "rounds-kept"}
CONTROLS = ("online", "unguarded", "random-drop", "expert", "offline", "no-update")
ONE = Shape(rewards=["short"], policies=[("policy", "")], weightings=[], gold=False, prompts=10)


def drawn(*sources: Any) -> set[str]:
    """Draw and return the names of the pictures."""
    return {Path(one).stem for one in plot(sources, "plots")["pictures"]}


def drawn_of(found: dict[str, Any]) -> set[str]:
    Path("eval.json").write_text(json.dumps(found))
    return drawn("eval.json")


def test_an_evaluation_gives_all_its_pictures() -> None:
    assert drawn(write_evaluation()) == OF_EVALUATIONS


def test_scored_rows_and_policies_give_their_plots(bench: Bench) -> None:
    assert drawn(bench.scored, bench.policy) == {"distribution", "correlations", "training-policy"}


def test_every_picture_has_a_caption_of_its_own() -> None:
    from irlhf.core.registry import resolve

    captions = [resolve(door).CAPTION for door in PICTURES.values()]
    assert len({*captions}) == len(PICTURES)
    assert all("\n" not in caption for caption in captions)


@pytest.mark.parametrize("kind", sorted(MAGIC))
def test_pictures_are_of_the_kind_asked_for(kind: Any) -> None:
    summary = plot([write_evaluation(ONE)], "plots", PlotSettings(format=kind))
    assert {Path(one).name for one in summary["pictures"]} >= {f"target-actual.{kind}"}
    assert all(Path(one).read_bytes().startswith(MAGIC[kind]) for one in summary["pictures"])


@pytest.mark.parametrize("kind", slow_after(1, ["svg", "pdf", "png"]))
def test_equal_data_gives_equal_bytes(kind: Any) -> None:
    write_evaluation(ONE)
    one, two = (plot(["eval.json"], folder, PlotSettings(format=kind)) for folder in ("one", "two"))
    for first, second in zip(one["pictures"], two["pictures"], strict=True):
        assert Path(first).read_bytes() == Path(second).read_bytes(), first
    assert Path(one["report"]).read_bytes() == Path(two["report"]).read_bytes()


PAIRS = [*zip(ODD_NAMES[::2], ODD_NAMES[1::2], strict=True)]


# The first pair holds what matplotlib and HTML each trip over; all of them take half a minute.
@pytest.mark.parametrize(
    ("name", "other"),
    slow_after(0, itertools.starmap(pytest.param, [PAIRS[4], *PAIRS[:4], *PAIRS[5:]])),
)
def test_names_with_special_characters_are_drawn(name: str, other: str) -> None:
    write_evaluation(Shape(rewards=[name, other], policies=[(name, ""), (name, "plain")], prompts=4))
    write(Path("scored.jsonl"), [example(i, rewards={name: float(i % 7), other: i / 2}) for i in range(30)])
    assert drawn("eval.json", "scored.jsonl") == OF_EVALUATIONS | {"distribution", "correlations"}


@pytest.mark.slow
def test_lone_surrogates_in_an_evaluation_are_drawn() -> None:
    assert "target-actual" in drawn_of(evaluation(Shape(rewards=["a\ud800\x1b[31m"], weightings=[], prompts=6)))
    assert "\x1b" not in Path("plots/report.html").read_text()


@pytest.mark.slow
def test_twelve_rewards_and_six_policies_are_drawn() -> None:
    policies = [*POLICIES, ("policy, best of 4", ""), ("chosen", "chosen"), ("prompted", "prompted")]
    weightings = [[1] * 12, [1, 0] * 6]
    write_evaluation(Shape([f"reward {i}" for i in range(12)], policies, weightings, gold=False, prompts=4))
    assert drawn("eval.json") == OF_EVALUATIONS - {"gold", "tradeoff"}


def test_one_policy_and_one_reward_are_drawn() -> None:
    assert drawn(write_evaluation(ONE)) == {"target-actual", "at-least", "price"}


@pytest.mark.slow
def test_three_rewards_are_traded_off_in_pairs() -> None:
    write_evaluation(Shape(rewards=["a", "b", "c"], weightings=[(1, 0, 0), (1, 1, 1)], gold=False, prompts=6))
    assert drawn("eval.json") == OF_EVALUATIONS - {"gold"}


def test_missing_measurements_are_not_drawn() -> None:
    found = evaluation(Shape(prompts=6))
    found |= {"tradeoff": [], "fronts": {}, "comparisons": []}
    for policy in found["policies"].values():
        policy |= {"entropy": NONE, "kl": NONE, "crosstalk": {}, "diversity": {"unique": NONE, "budget": 1000}}
        policy["diversity"] |= {"chunks": 0, "distinct_1": NONE, "distinct_2": NONE}
        policy["length"]["tokens"] = policy["cost"]["tokens"] = NONE
        for reward in policy["rewards"].values():
            reward |= {"pooled": {}, "within": {"prompts": 6}, "points": []}
            reward["gold"] |= {"within": None, "pooled": None, "over": {}}
            for level in reward["curve"]:
                level |= {"entropy": None, "kl": None}
    assert drawn_of(found) == {"target-actual", "at-least", "gold"}


@pytest.mark.slow
def test_one_target_moves_several_rewards() -> None:
    found = evaluation(Shape(prompts=6))
    for policy in found["policies"].values():
        policy["crosstalk"] |= {"targets": ["detail"], "slopes": policy["crosstalk"]["slopes"][1:]}
    assert "crosstalk" in drawn_of(found)


def test_a_provenance_without_row_counts_is_in_the_report() -> None:
    found = evaluation(ONE)
    found["provenance"] = {"irlhf": "0.1.0", "inputs": [{"path": "s.jsonl", "sha256": "ab" * 32}]}
    drawn_of(found)
    assert "ab" * 32 in Path("plots/report.html").read_text()


@pytest.mark.slow
def test_an_evaluation_of_mixes_alone_is_drawn() -> None:
    found = evaluation(Shape(prompts=6))
    for policy in found["policies"].values():
        policy |= {"rewards": {}, "crosstalk": {}}
    assert drawn_of(found) == {"tradeoff", "profile", "price", "comparison"}


def test_labels_of_costs_leave_points_free() -> None:
    found = evaluation(ONE)
    (policy,) = found["policies"].values()
    level = policy["rewards"]["short"]["curve"][0]
    costs = {0.1: 1.0, 0.2: 1.05, 0.9: 2.0}  # the second point is where the first label would be
    policy["rewards"]["short"]["curve"] = [
        {**level, "asked": asked, "actual": interval(asked), "entropy": cost} for asked, cost in costs.items()
    ]
    figure = costs_plot.draw(found)
    assert figure
    labels = {text.get_text(): text.xyann for text in figure.axes[0].texts if text.get_text()}
    assert labels == {"target 0.10": (0, -13), "target 0.90": (0, -13)}


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        ({"figure": "weighted", "reward": "1*kind + 2.5*short"}, "mix kind + 2.5 × short"),
        ({"figure": "weighted", "reward": "1*kind"}, "mix kind"),
        ({"figure": "error", "reward": "kind"}, "kind"),
        ({"figure": "tokens", "reward": ""}, ""),
    ],
)
def test_a_compared_mix_is_not_taken_for_a_reward(figure: dict[str, Any], text: str) -> None:
    assert compared(figure) == text


def test_an_evaluation_without_any_picture_still_has_its_report() -> None:
    found = evaluation(ONE)
    for policy in found["policies"].values():
        policy["rewards"] = {}
    assert drawn_of(found) == set()
    assert "<h3>Costs</h3>" in Path("plots/report.html").read_text()


@pytest.mark.parametrize("count", [1, 3, 6])
def test_no_legend_below_a_panel_is_cut_off(count: int) -> None:
    from irlhf.plotting import style
    from irlhf.plotting.target_actual import draw
    from irlhf.policy.evaluation_file import read_evaluation

    shape = Shape(policies=[(f"policy {i}", "") for i in range(count)], weightings=[], prompts=6)
    with style.look():
        figure = draw(read_evaluation(write_evaluation(shape)))
        assert figure
        style.rendered(figure, "png")
        legends = [axis.get_legend().get_window_extent() for axis in figure.axes]
    assert all(one.y0 >= 0 and one.x0 >= 0 and one.x1 <= figure.bbox.x1 for one in legends)


@pytest.mark.parametrize("points", slow_after(2, [0, 2000, 1, 2]))
def test_any_number_of_points_is_drawn(points: int) -> None:
    found = evaluation(ONE)
    for policy in found["policies"].values():
        for reward in policy["rewards"].values():
            reward["points"] = [[0.5, i / 2000] for i in range(points)]
            reward["curve"] = reward["curve"][: max(1, points)]
    assert "target-actual" in drawn_of(found)


def test_intervals_that_exclude_their_value_are_drawn() -> None:
    found = evaluation(ONE)
    for policy in found["policies"].values():
        for level in policy["rewards"]["short"]["curve"]:
            level["actual"] = {"value": 0.5, "low": 0.6, "high": 0.7}
    assert "target-actual" in drawn_of(found)


def test_preference_pairs_have_a_picture_of_their_own() -> None:
    assert drawn_of(evaluation_of_pairs(["helpful", "length"], gold=["helpful"])) == {"pairs"}
    text = Path("plots/report.html").read_text()
    assert "Do the rewards agree with the preferences?" in text
    assert "<h3>Costs</h3>" not in text
    assert text.count(" of 60 pairs") == 2


@pytest.mark.parametrize(
    ("rewards", "gold", "count"),
    [(ODD_NAMES, ODD_NAMES, 20), (["x" * 99, "x" * 98], [], 2), (["a"], [], 1), ([], ["a"], 5)],
)
def test_any_rewards_of_preference_pairs_are_drawn(rewards: list[str], gold: list[str], count: int) -> None:
    assert drawn_of(evaluation_of_pairs(rewards, gold, count)) == {"pairs"}


def test_an_evaluation_of_pairs_by_eval_is_drawn() -> None:
    sides = [{"label": "chosen", "rewards": {"r": 1.0}}, {"label": "rejected", "rewards": {"r": 0.0}}]
    write(Path("scored.jsonl"), [example(i, prompt="p", group=f"g{i // 2}", **sides[i % 2]) for i in range(8)])
    Path("rewards.yaml").write_text('rewards: {r: {scorer: "hf:somebody/rm"}}')
    assert call("eval", "scored.jsonl", "-r", "rewards.yaml").code == 0
    assert drawn("eval.json") == {"pairs"}


def panels(found: dict[str, Any]) -> list[str]:
    """Draw the rounds and return the titles of the panels, after what stands above them all."""
    from irlhf.plotting.inputs import read_input
    from irlhf.plotting.rounds import draw

    figure = draw(read_input(write_rounds(found)).rounds)
    assert figure
    return [figure.get_suptitle(), *(axis.get_title() for axis in figure.axes if axis.get_visible())]


@pytest.mark.parametrize(
    ("arms", "count"),
    slow_after(
        0, [pytest.param(("_a", "$x^{$", "x" * 99), 20), pytest.param(("online",), 1), pytest.param(CONTROLS, 3)]
    ),
)
def test_rounds_of_any_number_and_arms_are_drawn(arms: tuple[str, ...], count: int) -> None:
    assert drawn(write_rounds(rounds(arms, count))) == OF_ROUNDS


def test_of_many_rounds_some_are_shown_from_the_first_to_the_last() -> None:
    from irlhf.plotting.inputs import read_input
    from irlhf.plotting.rounds_target_actual import draw

    figure = draw(read_input(write_rounds(rounds(count=30))).rounds)
    assert figure
    labels = [text.get_text().partition(",")[0] for text in figure.axes[0].get_legend().get_texts()]
    assert [label for label in labels if label.startswith("round")] == [f"round {n}" for n in (0, 8, 15, 22, 30)]
    assert figure.get_suptitle() == "5 of 31 rounds"


@pytest.mark.slow
def test_an_arm_of_which_one_round_alone_was_measured_is_drawn() -> None:
    found = rounds(("online", "offline"))
    for row in found["arms"][1]["rounds"][1:]:
        row.update(dict.fromkeys(("reward", "gold", "entropy", "distinct_2"), NONE))
    assert drawn(write_rounds(found)) == OF_ROUNDS


def test_every_measurement_of_rounds_has_a_panel() -> None:
    told, *titles = panels(rounds(CONTROLS))
    assert told == "reward and gold: 24 samples of 6 prompts after each round"
    assert len(titles) == 9
    assert "gold against reward" in titles


def test_missing_measurements_of_rounds_are_listed() -> None:
    found = rounds(CONTROLS)
    for row in (row for arm in found["arms"] for row in arm["rounds"]):
        row |= {"gold": NONE, "kl": NONE, "unique": NONE}
        row["tracking"]["detail"] = NONE
    told, *titles = panels(found)
    assert titles == ["weighted reward", "entropy", "distinct-2", "length"]
    absent = "weighted gold, gold against reward, tracking within prompts, KL, distinct completions"
    assert told == f"reward: 24 samples of 6 prompts after each round\nnot available: {absent}"


def test_rounds_that_stop_because_gold_falls_say_so() -> None:
    found = rounds()
    found["arms"][0]["rounds"][-1]["gold fell"] = "by 0.20 [0.05, 0.36]"
    assert "round 3: gold fell by 0.20 [0.05, 0.36] while the rewards rose" in panels(found)[0]


@pytest.mark.slow
def test_rounds_that_dropped_nothing_have_no_plot_of_dropped_samples() -> None:
    found = rounds()
    for row in found["arms"][0]["rounds"][1:]:
        del row["sides"]["dropped"]
    assert drawn(write_rounds(found)) == OF_ROUNDS - {"rounds-kept"}


def test_entropy_that_is_not_available_is_not_drawn() -> None:
    from irlhf.plotting.inputs import read_input
    from irlhf.plotting.rounds_kept import draw

    found = rounds(("online", "expert"))
    for row in (row for arm in found["arms"] for row in arm["rounds"][1:]):
        for side in row["sides"].values():
            side["entropy"] = NONE
    figure = draw(read_input(write_rounds(found)).rounds)
    assert figure
    assert {axis.get_ylabel() for axis in figure.axes} == {"weighted reward, sd", "tokens per completion"}


@pytest.mark.slow
def test_a_missing_evaluation_of_a_round_is_reported() -> None:
    path = write_rounds(rounds())
    for number in (0, 2):
        Path(f"round-{number}/eval.json").unlink()
    outcome = call("plot", path)
    assert (outcome.code, outcome.err.count("\n")) == (0, 2)
    assert "rounds.json: no round-N/eval.json beside it for round 0, 2, so these rounds are missing" in outcome.err


@pytest.mark.parametrize(
    "change",
    [
        {"version": 3},
        {"arms": []},
        {"arms": {}},
        {"arms": [{"name": "online", "rounds": []}]},
        {"arms": [{"name": "online", "rounds": [{"round": "1"}]}]},
        {"arms": [7]},
    ],
)
def test_rounds_of_another_shape_are_refused(change: dict[str, Any]) -> None:
    Path("rounds.json").write_text(json.dumps({**rounds(), **change}))
    outcome = call("plot", "rounds.json", "-o", "plots")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "draw it with the irlhf that wrote it" in outcome.err
    assert not Path("plots").exists()


def test_an_evaluation_of_the_version_before_is_drawn() -> None:
    older = evaluation(ONE)
    for policy in older["policies"].values():
        for found in policy["rewards"].values():
            found["pooled"]["r2"] = found["within"]["kendall"] = found["within"]["spearman"]
    Path("eval.json").write_text(json.dumps({**older, "version": 2}))
    outcome = call("plot", "eval.json", "-o", "plots", "--report", "report.html")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("version", [1, 5, "3", None])
def test_another_version_of_an_evaluation_is_refused(version: object) -> None:
    Path("eval.json").write_text(json.dumps({**evaluation(ONE), "version": version}))
    outcome = call("plot", "eval.json", "-o", "plots")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "run `irlhf eval`" in outcome.err
    assert not Path("plots").exists()


def test_an_evaluation_that_lost_a_part_is_refused() -> None:
    found = evaluation(ONE)
    del found["fronts"]
    Path("eval.json").write_text(json.dumps(found))
    assert call("plot", "eval.json", "-o", "plots").code == 1


def test_a_reward_that_is_constant_is_drawn() -> None:
    write(Path("scored.jsonl"), [example(i, rewards={"a": 1.0, "b": float(i)}) for i in range(5)])
    assert drawn("scored.jsonl") == {"distribution", "correlations"}


def test_rewards_that_no_row_shares_are_drawn() -> None:
    write(Path("scored.jsonl"), [example(i, rewards={"ab"[i % 2]: float(i)}) for i in range(10)])
    assert drawn("scored.jsonl") == {"distribution", "correlations"}


def test_one_reward_has_no_correlations() -> None:
    write(Path("scored.jsonl"), [example(i, rewards={"a": float(i)}) for i in range(10)])
    assert drawn("scored.jsonl") == {"distribution"}


def test_plots_of_several_files_have_distinct_names() -> None:
    for name in ("a", "b", "c"):
        Path(name).mkdir()
        write(Path(name, "scored.jsonl"), [example(i, rewards={name: float(i)}) for i in range(5)])
    summary = plot(["a/scored.jsonl", "b/scored.jsonl", "c/scored.jsonl"], "plots")
    assert len(set(summary["pictures"])) == 3


def test_samples_alone_make_a_report() -> None:
    assert drawn(write_samples(ONE)) == set()


def test_rows_without_rewards_are_nothing_to_draw() -> None:
    write(Path("scored.jsonl"), [example(i, rewards={}) for i in range(5)])
    outcome = call("plot", "scored.jsonl", "-o", "plots")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)


def test_a_file_in_the_way_of_the_folder_is_refused() -> None:
    write_evaluation(ONE)
    Path("plots").write_text("precious")
    assert call("plot", "eval.json", "-o", "plots").code == 2
    assert Path("plots").read_text() == "precious"


def test_the_pictures_leave_the_callers_settings_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot([write_evaluation(ONE)], "plots")
    assert dict(matplotlib.rcParams) == before


def test_the_pictures_are_where_the_summary_says() -> None:
    summary = plot([write_evaluation(ONE)], "plots")
    assert names(Path("plots")) == {Path(one).name for one in [*summary["pictures"], summary["report"]]}


def test_folders_without_a_training_curve_are_an_error(bench: Bench) -> None:
    Path("untouched").mkdir()
    Path("untouched/policy.json").write_bytes((bench.policy / "policy.json").read_bytes())
    Path("pictures").mkdir()
    for folder, told in (("untouched", "nothing was trained in it"), ("pictures", "not a policy's folder")):
        outcome = call("plot", folder)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert told in outcome.err


def test_the_summary_names_the_report(bench: Bench) -> None:
    assert "training-policy.png and report.html to plots" in call("plot", bench.policy).err
    assert (
        "wrote page.html, and training-policy.png to plots" in call("plot", bench.policy, "--report", "page.html").err
    )


def test_samples_alone_give_a_report_and_no_picture() -> None:
    assert "wrote no picture and report.html to plots" in call("plot", write_samples()).err


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda policy: policy.pop("samples"), "policies.00000000000a.samples: Field required; run `irlhf eval`"),
        (
            lambda policy: policy.update(rewards=[1]),
            "a.rewards: Input should be a valid dictionary",
        ),
        (lambda policy: policy["rewards"]["short"]["curve"][0].update(asked="high"), "TypeError"),
        (lambda policy: policy.pop("unfinished"), "StrictUndefined"),
    ],
)
def test_a_damaged_evaluation_is_a_one_line_error(damage: Any, told: str) -> None:
    found = evaluation(ONE)
    damage(next(iter(found["policies"].values())))
    Path("eval.json").write_text(json.dumps(found))
    outcome = call("plot", "eval.json", "-o", "plots")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
    assert "irlhf: eval.json: " in outcome.err
    assert told in outcome.err
    assert not Path("plots").exists()


def test_damaged_rounds_are_a_one_line_error() -> None:
    path = write_rounds(rounds())
    found = json.loads(path.read_text())
    found["arms"][0]["rounds"][0]["tracking"] = "good"
    path.write_text(json.dumps(found))
    outcome = call("plot", path, "-o", "plots")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
    assert "rounds.json: damaged, or changed by hand (" in outcome.err
    assert not Path("plots").exists()


def test_a_report_of_other_files_is_not_overwritten() -> None:
    write_evaluation(ONE, "eval.json")
    write_evaluation(ONE, "other.json")
    assert call("plot", "eval.json").code == 0
    before = Path("plots/report.html").read_bytes()
    done = call("plot", "other.json")
    assert (done.code, Path("plots/report.html").read_bytes()) == (2, before)
    assert "plots/report.html also shows eval.json, which would be lost; add them, choose another folder" in done.err


def test_the_title_of_two_correlations_fits() -> None:
    from irlhf.plotting.correlations import draw

    figure = draw([{"clarity": float(i), "friendliness": float(i % 7)} for i in range(200)])
    assert figure
    figure.draw_without_rendering()
    (title,) = (text for text in figure.texts if "n = 200" in text.get_text())
    box = title.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def test_labels_of_near_percentiles_are_joined() -> None:
    from irlhf.plotting.distribution import draw

    figure = draw([{"short": float(i > 120)} for i in range(200)] + [{"short": 20.0}] * 30)
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == ["p5, p50", "p95"]


def test_mixes_are_bars_under_their_names() -> None:
    from irlhf.plotting.profile import draw

    figure = draw(evaluation(Shape()))
    assert figure
    titles = [axis.get_title() for axis in figure.axes if axis.get_visible()]
    assert titles == ["kindness", "2 × kindness + detail", "kindness + detail", "kindness + 2 × detail", "detail"]
    assert len(figure.axes[0].patches) == 2 * 3  # a bar for each reward of each policy


def test_a_missing_source_is_named_before_an_earlier_report(tmp_path: Path) -> None:
    plot([write_evaluation(ONE)], "plots")
    outcome = call("plot", "missing.json")
    assert (outcome.code, outcome.err) == (2, "irlhf: missing.json: cannot be read (No such file or directory)\n")
