"""The tables of docs/rewards.md, from what the studies in studies/rewards/ left in docs/results/."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from asking import shown

RESULTS = Path(__file__).parent / "results"

Row = dict[str, Any]


def read(name: str) -> list[Row]:
    """Return a study's cells, in the order of their seeds."""
    lines = (RESULTS / f"rewards-{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted(map(json.loads, lines), key=lambda row: int(row["cell"]["seed"]))


def percent(figure: dict[str, float]) -> str:
    """Return a share with its interval, in per cent."""
    return shown({name: 100 * value for name, value in figure.items()}, 1)


def noisy() -> Iterator[str]:
    """Accuracy on clean pairs of reward models trained on noisy labels, by seed and base."""
    yield "| seed | base | accuracy, % | better length rule, % | difference, points | n |"
    yield "|---|---|---|---|---|---|"
    for row in read("noisy"):
        for name, found in row["results"]["eval"]["pairs"]["rewards"].items():
            if name != "rule":  # the rule itself is always right
                figures = [percent(found[one]) for one in ("accuracy", "best_rule", "above_rule")]
                yield f"| {row['cell']['seed']} | {name} | {' | '.join(figures)} | {found['n']} |"


def anthropic() -> Iterator[str]:
    """Accuracy on the model's own test pairs and on the other model's, by seed and model."""
    yield "| seed | reward model | its own pairs, % | the other's, % | better length rule on its own, % | n |"
    yield "|---|---|---|---|---|---|"
    for row in read("hh"):
        for name, other in (("helpful", "harmless"), ("harmless", "helpful")):
            own, foreign = (row["results"][kind]["pairs"]["rewards"][name] for kind in (name, other))
            figures = [percent(one) for one in (own["accuracy"], foreign["accuracy"], own["best_rule"])]
            yield f"| {row['cell']['seed']} | {name} | {' | '.join(figures)} | {own['n']}, {foreign['n']} |"


def together() -> Iterator[str]:
    """Correlation of the two models' rewards, by seed."""
    yield "| seed | rows of | Pearson | Spearman | rows, prompts |"
    yield "|---|---|---|---|---|"
    for row in read("hh"):
        for name, what in (("samples", "a policy's samples"), ("data", "the data")):
            found = row["results"][name]
            figures = f"{shown(found['pearson'])} | {shown(found['spearman'])}"
            yield f"| {row['cell']['seed']} | {what} | {figures} | {found['n']:,}, {found['prompts']:,} |"


def _measured(study: str, table: Callable[[], Iterator[str]]) -> Callable[[], Iterator[str]]:
    """Return a table that says so where its study has left no results."""

    def lines() -> Iterator[str]:
        if (RESULTS / f"rewards-{study}.jsonl").exists():
            yield from table()
        else:
            yield f"Not measured yet: `python studies/run.py studies/rewards/{study}.yaml -o study` does it."

    return lines


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "rewards-noisy": _measured("noisy", noisy),
    "rewards-hh": _measured("hh", anthropic),
    "rewards-together": _measured("hh", together),
}
