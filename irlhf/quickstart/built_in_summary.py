"""The closing summary of the built-in quickstart: sample answers, target against actual, mixes, next steps."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from irlhf.core.console import clean

_LOW, _HIGH = 0.1, 0.9


def tell(evaluation: dict[str, Any], grid: Sequence[dict[str, Any]]) -> None:
    """Print the summary on stdout."""
    console = Console(highlight=False)
    for part in (_answers(grid), _tracking(evaluation), _mixes(evaluation), _next()):
        console.print(Padding(part, (1, 0, 0, 0)))


def _answers(grid: Sequence[dict[str, Any]]) -> Group:
    """Return a table of the answers to one held-out prompt at low and high targets of both rewards."""
    prompt = next(iter(grid))["group"]
    prompt_rows = [row for row in grid if row["group"] == prompt]
    table = Table(show_lines=True, expand=True)
    table.add_column("target")
    table.add_column(f"detail: {_LOW:.2f}", ratio=1)
    table.add_column(f"detail: {_HIGH:.2f}", ratio=1)
    for kindness in (_HIGH, _LOW):
        answers = [Text(clean(_answer(prompt_rows, kindness, detail))) for detail in (_LOW, _HIGH)]
        table.add_row(f"kindness: {kindness:.2f}", *answers)
    topic = Text(f"A prompt of a held-out topic: “{clean(prompt_rows[0]['prompt'])}”", style="bold")
    return Group(topic, table)


def _answer(rows: Sequence[dict[str, Any]], kindness: float, detail: float) -> str:
    targets = {"kindness": kindness, "detail": detail}
    # Targets without a training row were replaced by the nearest one with a training row.
    row = min(rows, key=lambda row: sum(abs(row["asked"][name] - number) for name, number in targets.items()))
    return str(row["completion"])


def _tracking(evaluation: dict[str, Any]) -> Group:
    table = _table("policy", "reward", "within prompts", "pooled", "error")
    for policy in _ordered(evaluation):
        for reward, metrics in policy["rewards"].items():
            error = metrics["error"]
            floor = min(error["floor_permuted"], error["floor_constant"])
            figures = _shown(metrics["within"]["spearman"]), _shown(metrics["pooled"]["spearman"])
            table.add_row(policy["name"], reward, *figures, f"{error['mean_absolute']['value']:.2f} ({floor:.2f})")
    n, prompts = next((metrics["n"], metrics["prompts"]) for metrics in _ordered(evaluation)[0]["rewards"].values())
    title = (
        f"Target against actual reward: Spearman's ρ, {n} answers to {prompts} prompts of held-out topics."
        " Error: mean distance, in brackets at best without steering"
    )
    return Group(Text(title, style="bold"), table)


def _mixes(evaluation: dict[str, Any]) -> Group:
    table = _table("best by", "policy", "weighted reward", "kindness", "detail")
    for mix in evaluation["tradeoff"]:
        terms = {name: weight for name, weight in mix["weights"].items() if weight}
        formula = " + ".join(name if weight == 1 else f"{weight:g}×{name}" for name, weight in terms.items())
        for i, arm in enumerate(sorted(mix["arms"], key=lambda arm: bool(arm["baseline"]))):
            numbers = [f"{arm['rewards'][name]['value']:+.2f}" for name in ("kindness", "detail")]
            table.add_row("" if i else formula, arm["name"], _shown(arm["weighted"]), *numbers)
    title = "Best mixes of both rewards, in standard deviations above the mean of the training data"
    return Group(Text(title, style="bold"), table)


def _next() -> Group:
    return Group(
        Text("Next steps, in the folder:", style="bold"),
        Text("  report.html in a browser: plots, metrics, all samples"),
        Text("  irlhf sample policy prompts.jsonl -t kindness=0.2 -o -    try other targets"),
        Text("  change scorers.py, copy run.sh, change its outputs        use your own reward"),
        Text("If the command irlhf is not found: . ../.venv/bin/activate", style="dim"),
    )


def _table(*names: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


def _ordered(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(evaluation["policies"].values(), key=lambda policy: bool(policy["baseline"]))


def _shown(figure: dict[str, float]) -> str:
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"
