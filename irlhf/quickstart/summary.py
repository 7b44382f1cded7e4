"""The closing summary of the quickstart with a pretrained model: sample answers, levels and a verdict."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from irlhf.core.console import clean
from irlhf.io.files import whole_file
from irlhf.io.markdown import code, escaped, table_row
from irlhf.quickstart.settings import DECODING

REPORT = "report.md"
PICTURE = "plots/target-actual.png"
LEVELS = (0.1, 0.5, 0.9)  # low, medium, high: percentiles 10, 50 and 90 of the base's own samples
NAMES = ("low", "medium", "high")

_MEDIUM = LEVELS[1]
_PRINTED = 3  # test prompts with printed answers
_REPORTED = 8  # test prompts in the report
_UNIT = "the share of the base's own samples below it"
_MOST = 0.95  # largest rank correlation with three levels of targets, because of ties

Rows = Sequence[dict[str, Any]]


def report(evaluation: dict[str, Any], answers: Rows, model: str) -> None:
    """Print the summary on stdout and write report.md into the current folder."""
    rewards = _rewards(evaluation)
    console = Console(highlight=False)
    parts: list[Any] = [_printed_answers(answers, name) for name in rewards]
    parts += [_printed_levels(rewards), _printed_verdict(rewards), _next_steps()]
    for part in parts:
        console.print(Padding(part, (1, 0, 0, 0)))
    with whole_file(Path(REPORT)) as temporary:
        temporary.write_text("\n".join(_page(rewards, answers, model)) + "\n", encoding="utf-8", newline="\n")


def verdict(name: str, figures: Mapping[str, Any]) -> str:
    """Return a sentence on whether the policy follows a reward: the interval of its correlation must be above 0."""
    tracked = figures["within"].get("spearman")
    if not tracked:
        return f"`{name}` is not measurable: no prompt has answers with different rewards."
    figure = f"its rank correlation with the target, within prompts, is {_shown(tracked)}"
    size = f"({figures['n']:,} answers to {figures['prompts']:,} prompts)"
    if tracked["low"] > 0:
        return f"The policy follows `{name}`: {figure} {size}. With three levels, at most {_MOST} is possible."
    if tracked["high"] < 0:
        return f"The policy moves against `{name}`: {figure} {size}."
    return f"The policy does not follow `{name}`: {figure} {size}, an interval that includes 0."


def side_by_side(answers: Rows, reward: str, prompts: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the first prompts with their answers at low, medium and high targets of a reward; others are at medium."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in answers:
        groups.setdefault(row["group"], []).append(row)
    for rows in list(groups.values())[:prompts]:
        yield rows[0]["prompt"], [_nearest(rows, reward, level)["completion"] for level in LEVELS]


def _nearest(rows: Rows, reward: str, level: float) -> dict[str, Any]:
    # Targets without a training row were replaced by the nearest one with a training row.
    def distance(row: Mapping[str, Any]) -> float:
        return float(sum(abs(number - (level if name == reward else _MEDIUM)) for name, number in row["asked"].items()))

    return min(rows, key=distance)


def _rewards(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of each reward of the only policy."""
    rewards: dict[str, Any] = next(iter(evaluation["policies"].values()))["rewards"]
    return rewards


def _printed_answers(answers: Rows, reward: str) -> Group:
    parts: list[Any] = [Text(f"Answers at three targets of {reward}, the other at medium", "bold")]
    for prompt, texts in side_by_side(answers, reward, _PRINTED):
        table = Table(expand=True, title=Text(clean(prompt), "bold"), title_justify="left")
        for level, name in zip(LEVELS, NAMES, strict=True):
            table.add_column(f"{reward}: {level:.2f} ({name})", ratio=1)
        table.add_row(*(Text(clean(text)) for text in texts))
        parts.append(table)
    return Group(*parts)


def _printed_levels(rewards: Mapping[str, Any]) -> Group:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in _level_headings():
        table.add_column(heading, no_wrap=True)
    for row in _level_rows(rewards):
        table.add_row(*row)
    return Group(Text(f"Mean actual reward at each target: {_UNIT}", "bold"), table)


def _level_headings() -> list[str]:
    return ["target", *(f"{name} ({level:.2f})" for name, level in zip(NAMES, LEVELS, strict=True))]


def _level_rows(rewards: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the name of each reward and its mean actual reward at each level, with intervals."""
    for name, figures in rewards.items():
        yield [name, *(_shown(level["actual"]) for level in figures["curve"])]


def _printed_verdict(rewards: Mapping[str, Any]) -> Group:
    lines = [Text(verdict(name, figures), "bold") for name, figures in rewards.items()]
    how = f"Brackets: 95% bootstrap intervals over prompts. One answer each, sampled with {DECODING}."
    return Group(*lines, Text(how, "dim"))


def _next_steps() -> Group:
    return Group(
        Text("Next, in the folder:", style="bold"),
        Text(f"  {REPORT} and report.html: more answers, metrics, plots"),
        Text(f"  irlhf sample policy prompts.jsonl -t personal=0.9 {DECODING} -o -"),
        Text("  for your own policy, copy and change prompts.jsonl, rewards.yaml, word_length.py and run.sh"),
    )


def _page(rewards: Mapping[str, Any], answers: Rows, model: str) -> Iterator[str]:
    """Yield the lines of report.md."""
    name = Path(model).name if Path(model).is_dir() else model
    yield from (f"# A policy trained from {escaped(name)} and prompts only", "")
    yield from (f"- {verdict(reward, figures)}" for reward, figures in rewards.items())
    yield from ("", "Brackets are 95% bootstrap intervals over prompts. One answer per pair of")
    yield from (f"targets, sampled with `{DECODING}`.", "", f"![Target against actual reward]({PICTURE})", "")
    yield from (f"Mean actual reward at each target: {_UNIT}.", "")
    yield from _table(_level_headings(), ([code(row[0]), *row[1:]] for row in _level_rows(rewards)))
    for reward in rewards:
        yield from ("", f"## {code(reward)} at low, medium and high", "")
        yield from ("The first test prompts of the file; the other reward is at medium.", "")
        rows = side_by_side(answers, reward, _REPORTED)
        yield from _table(["prompt", *NAMES], ([escaped(prompt), *map(escaped, texts)] for prompt, texts in rows))


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield from (table_row(headings), table_row(["---"] * len(headings)), *map(table_row, rows))


def _shown(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"
