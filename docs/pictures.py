"""Pictures of docs/ that are drawn from result files, in the look of `irlhf plot`."""

import json
from pathlib import Path
from typing import Any

from irlhf.plotting import rounds, style, target_actual, tradeoff
from irlhf.plotting.inputs import Rounds, RoundsArm
from irlhf.policy.evaluation_file import checked_evaluation

_CONTROLS = ("unguarded", "random-drop", "expert")  # runs of rounds in studies/online/rounds.yaml
_ARMS = ("policy", "plain", "chosen-6", "top-6")  # at equal completion tokens
_LOADS = {"score": "score", "sample": "sample, three a prompt", "killed": "sample, killed half way: the second run"}


def memory(result: Path) -> bytes:
    """Return the peak of resident memory, and the time for a row, along the number of rows."""
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    with style.look():
        figure, (peaks, times) = style.panels(2, height=3.8)
        handles = {}
        for (load, label), colour, marker in zip(_LOADS.items(), style.COLOURS, style.MARKERS, strict=False):
            sizes = sorted(int(size) for size in found[load] if size.isdigit())
            each = [found[load][str(size)] for size in sizes]
            drawn: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 6, "linewidth": 2}
            (handles[label],) = peaks.plot(sizes, [one["peak_mib"] for one in each], **drawn)
            spent = [1e6 * one["seconds"] / size for one, size in zip(each, sizes, strict=True)]
            times.plot(sizes, spent, **drawn)
        peaks.set(title="peak memory", ylabel="MiB")
        times.set(title="time", ylabel="microseconds a row")
        for axis in (peaks, times):
            axis.set(xscale="log", ylim=(0, None), xlabel="rows")
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axis.minorticks_off()
        style.legend_under(figure, handles, columns=len(handles))
        return style.rendered(figure, "png")


def asking_reach(result: Path) -> bytes:
    """Return the actual rewards for targets beyond the data, as written and clipped to the reach, for each seed."""
    rows = [json.loads(line) for line in result.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["cell"]["how"].startswith("z")]
    with style.look():
        figure, axes = style.panels(2, height=3.8)
        handles = {}
        for axis, how, title in zip(axes, ("raw", "held"), ("as written", "clipped to the reach"), strict=True):
            for row, colour, marker in zip(rows, style.COLOURS, style.MARKERS, strict=False):
                levels = row["results"][how]["levels"]
                wanted = [one["wanted"] for one in levels]
                low, high = ([one["actual"][end] for one in levels] for end in ("low", "high"))
                axis.fill_between(wanted, low, high, color=colour, alpha=0.15, linewidth=0)
                (line,) = axis.plot(
                    wanted, [one["actual"]["value"] for one in levels], color=colour, marker=marker, markersize=4
                )
                handles[f"seed {row['cell']['seed']}"] = line
            axis.axline((0, 0), slope=1, color=style.GREY, linewidth=1, linestyle=":")
            axis.set(title=title, xlabel="target kindness, z-score", ylim=(-2.2, 2.6))
        axes[0].set(ylabel="actual kindness, z-score")
        style.legend_under(figure, handles, columns=len(handles))
        return style.rendered(figure, "png")


def quickstart_tradeoff(result: Path) -> bytes:
    """Return the actual rewards of each weighting of the first seed, beside three baselines."""
    first = json.loads(result.read_text(encoding="utf-8").splitlines()[0])["results"]["test"]
    shown = {key: policy for key, policy in first["policies"].items() if policy["name"] in _ARMS}
    mixes = [{**mix, "arms": [arm for arm in mix["arms"] if arm["policy"] in shown]} for mix in first["tradeoff"]]
    # Results do not keep the points of a front. No weighting of an arm is worse than another one in both rewards.
    points = [{"weights": mix["weights"], "chosen": True} for mix in mixes]
    arms = [{**arm, "points": points} for arm in first["fronts"]["arms"] if arm["policy"] in shown]
    fronts = {**first["fronts"], "arms": arms}
    with style.look():
        figure = tradeoff.draw({**first, "policies": shown, "tradeoff": mixes, "fronts": fronts})
        assert figure
        return style.rendered(figure, "png")


def online_rounds(result: Path) -> bytes:
    """Return what was watched in the rounds of the first seed, beside the controls that are rounds too."""
    first = json.loads(result.read_text(encoding="utf-8").splitlines()[0])
    with style.look():
        arms = [
            RoundsArm(name, first["results"][key]["rounds"])
            for name, key in (("online", "rounds"), *((arm, f"rounds-{arm}") for arm in _CONTROLS))
        ]
        figure = rounds.draw(Rounds(arms, {}))
        assert figure
        return style.rendered(figure, "png")


def steering_target_actual(result: Path) -> bytes:
    """Return the targets and actual rewards of the pretrained model of seed 0: likelihood, contrast, and guidance."""
    shown = {
        "likelihood alone": ("steering-hh.jsonl", {"objective": "likelihood", "seed": 0}),
        "contrast": (result.name, {"objective": "contrast", "seed": 0}),
        "contrast, guidance 2": ("steering-guidance.jsonl", {"against": "opposite", "weight": 2}),
    }
    policies = {}
    for name, (file, cell) in shown.items():
        path = result.with_name(file)
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        row = next(row for row in rows if cell.items() <= row["cell"].items())
        (policy,) = checked_evaluation(row["results"]["tracking"], path)["policies"].values()
        metrics = {reward: {**found, "points": []} for reward, found in policy["rewards"].items()}  # not kept
        baseline = "likelihood" if name.startswith("likelihood") else ""
        policies[name] = {**policy, "name": name, "baseline": baseline, "rewards": metrics}
    with style.look():
        figure = target_actual.draw({"policies": policies})
        assert figure
        return style.rendered(figure, "png")
