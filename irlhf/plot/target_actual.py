"""Target against actual: each sample a dot, the mean of each tenth with its interval, the line of obedience."""

from pathlib import Path
from typing import Any

import numpy as np

from irlhf.files import read_json
from irlhf.plot import style

_BINS = 10


def wants(path: Path, first: dict[str, Any]) -> bool:
    """Return whether this is an eval.json."""
    return "policies" in first and "version" in first


def draw(path: Path) -> list[tuple[str, Any]]:
    """Return one figure, a panel for each reward, every policy in each."""
    policies = list(read_json(path)["policies"].values())
    # A baseline is drawn last: thin, grey and on top, so that it is seen at all.
    policies.sort(key=lambda policy: bool(policy["baseline"]))
    rewards = list(dict.fromkeys(name for policy in policies for name in policy["rewards"]))
    figure, axes = style.panels(len(rewards), height=5.4)
    for reward, axis in zip(rewards, axes, strict=True):
        _panel(axis, reward, [policy for policy in policies if reward in policy["rewards"]])
    return [("target-actual", figure)]


def _panel(axis: Any, reward: str, policies: list[dict[str, Any]]) -> None:
    spread = [value for policy in policies for point in policy["rewards"][reward]["points"] for value in point]
    ends = min(0.0, *spread), max(1.0, *spread)
    axis.plot(ends, ends, color="black", linewidth=1, linestyle=style.DASHED, label="asked = given")
    for i, policy in enumerate(policies):
        colour = style.GREY if policy["baseline"] else style.COLOURS[i % len(style.COLOURS)]
        _one_policy(axis, policy, policy["rewards"][reward], (colour, style.MARKERS[i % len(style.MARKERS)]))
    axis.set(xlim=ends, ylim=ends, title=style.short(reward), xlabel="target (asked)", ylabel="actual (given)")
    axis.set_aspect("equal")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), handlelength=1.6)


def _one_policy(axis: Any, policy: dict[str, Any], found: dict[str, Any], mark: tuple[str, str]) -> None:
    colour, marker = mark
    asked, actual = np.array(found["points"]).T
    axis.scatter(asked, actual, s=9, color=colour, alpha=0.18, linewidths=0)
    kind = next((kind for kind in ("within", "pooled") if "spearman" in found[kind]), "")
    label = style.short(policy["name"]) + (_told(kind, found[kind]["spearman"]) if kind else "")
    centres, means, errors = _binned(asked, actual)
    look = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 2, "capsize": 2}
    axis.errorbar(centres, means, yerr=errors, label=label, **look)


def _told(kind: str, rho: dict[str, float]) -> str:
    where = "within prompts" if kind == "within" else "pooled"
    return f": ρ {rho['value']:.2f} [{rho['low']:.2f}, {rho['high']:.2f}] {where}"


def _binned(asked: Any, actual: Any) -> tuple[list[float], list[float], list[float]]:
    """Return the middle, the mean and 1.96 standard errors of each tenth of the targets."""
    order = np.argsort(asked, kind="stable")
    parts = [part for part in np.array_split(order, _BINS) if len(part) > 1]
    means = [float(actual[part].mean()) for part in parts]
    errors = [float(1.96 * actual[part].std(ddof=1) / np.sqrt(len(part))) for part in parts]
    return [float(asked[part].mean()) for part in parts], means, errors
