"""The tables of docs/asking.md, from what the studies in studies/asking/ left in docs/results/."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

Row = dict[str, Any]


def read(name: str) -> list[Row]:
    """Return a study's cells, in the order of its grid's values."""
    path = RESULTS / f"asking-{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def shown(figure: dict[str, float], digits: int = 2) -> str:
    """Return a figure with its interval."""
    value, low, high = (f"{figure[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _by(rows: list[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Return the cells that differ by seed alone, in the order of their seeds."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda row: int(row["cell"]["seed"])):
        found.setdefault(tuple(row["cell"][name] for name in names), []).append(row)
    return found


def _policy(row: Row, ask: str = "") -> Row:
    """Return the figures of a cell's one policy, asked in one way of several."""
    results = row["results"]["evals"][ask] if ask else row["results"]["eval"]
    (policy,) = results["policies"].values()
    found: Row = policy
    return found


def _each(rows: list[Row], figure: Callable[[Row], dict[str, float]], digits: int = 2) -> str:
    return " | ".join(shown(figure(row), digits) for row in rows)


def _seeds(first: str, *more: str) -> Iterator[str]:
    heads = [first, *more]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"


_FORMATS = {
    "reward-end": "`reward-end`: decimals, 101 tokens",
    "reward-start": "`reward-start`",
    "reward-both": "`reward-both`",
    "reward-system": "`reward-system`",
    "steps.yaml": "decimals in steps of 0.05, 21 tokens",
    "integer.yaml": "0 to 99, 100 tokens",
    "bins": "`bins`: 20 tokens",
    "words": "`words`: 10 tokens",
    "digits.yaml": "decimals, digit by digit",
    "letters.yaml": "ten letters, as the base has them",
}
_BASE_FORMATS = {
    "reward-end": "`reward-end`: decimals, digit by digit",
    "integer.yaml": "0 to 99, digit by digit",
    "bins": "`bins`: 20 new tokens",
    "words": "`words`, as the base spells them",
    "letters.yaml": "ten letters, each a token that the base has",
}


def _formats(name: str, told: dict[str, str]) -> Iterator[str]:
    yield from _seeds("template", "reward", "seed 0", "seed 1", "seed 2", "mean error")
    cells = _by(read(name), "template")
    for template, spelled in told.items():
        rows = cells.get((template,), [])
        for reward in _policy(rows[0])["rewards"] if rows else ():
            within = _each(rows, lambda row, reward=reward: _policy(row)["rewards"][reward]["within"]["spearman"])
            errors = [_policy(row)["rewards"][reward]["error"]["mean_absolute"]["value"] for row in rows]
            yield f"| {spelled} | {reward} | {within} | {', '.join(f'{one:.3f}' for one in errors)} |"


def formats() -> Iterator[str]:
    """Each place and spelling with the built-in base: within-prompt tracking, seed by seed."""
    return _formats("format", _FORMATS)


def stories() -> Iterator[str]:
    """Each spelling with a pretrained base: within-prompt tracking, seed by seed."""
    return _formats("stories", _BASE_FORMATS)


def many() -> Iterator[str]:
    """One to four rewards: within-prompt tracking, and what a target moves beside its own reward."""
    yield from _seeds("rewards", "asked for", "reward", "within prompts: seed 0", "seed 1", "seed 2", "moved by others")
    for (count,), rows in sorted(_by(read("many"), "rewards").items()):
        for kind, told in (("data", "vectors of the data"), ("uniform", "independent numbers")):
            for reward in _policy(rows[0], kind)["rewards"]:
                within = _each(
                    rows, lambda row, kind=kind, name=reward: _policy(row, kind)["rewards"][name]["within"]["spearman"]
                )
                moved = ", ".join(_moved(_policy(row, kind)["crosstalk"], reward) for row in rows)
                yield f"| {count} | {told} | {reward} | {within} | {moved} |"


def _moved(crosstalk: Row | None, reward: str) -> str:
    """Return the mean absolute slope of a reward on the targets of the others."""
    if not crosstalk or reward not in crosstalk["rewards"]:
        return "–"
    column = crosstalk["rewards"].index(reward)
    others = zip(crosstalk["targets"], crosstalk["slopes"], strict=True)
    slopes = [abs(row[column]["value"]) for target, row in others if target != reward]
    return f"{sum(slopes) / len(slopes):.2f}" if slopes else "–"


_ASKS = {"{0}..": "at least, said so", "~{0}..": "a number drawn above", "{0}": "the threshold itself"}


def thresholds() -> Iterator[str]:
    """Each way to ask for a threshold: how many keep it, what they give, how varied they are."""
    heads = "threshold", "asked for", "lines learnt", "share that keeps it: seed 0", "seed 1", "seed 2"
    yield from _seeds(*heads, "mean actual", "different pairs of words")
    cells = _by(read("thresholds"), "template")
    for level in ("0.4", "0.6", "0.8"):
        for form, told in _ASKS.items():
            for template, learnt in (("bounds.yaml", "numbers and thresholds"), ("steps.yaml", "numbers alone")):
                ask = form.format(level)
                if (form, template) == ("{0}..", "steps.yaml"):
                    continue  # it draws a number above, as the next row does
                rows = cells[template,]
                found = [_policy(row, ask) for row in rows]
                kept = " | ".join(shown(one["rewards"]["kindness"]["at_least"]["share"]) for one in found)
                actual = ", ".join(f"{one['rewards']['kindness']['actual']['value']:.2f}" for one in found)
                distinct = ", ".join(f"{one['diversity']['distinct_2']['value']:.2f}" for one in found)
                yield f"| {level} | {told} | {learnt} | {kept} | {actual} | {distinct} |"


def _levels(rows: list[Row], shown_levels: tuple[float, ...]) -> Iterator[str]:
    heads = "wanted", "as written: seed 0", "seed 1", "seed 2", "held to the reach: seed 0", "seed 1", "seed 2"
    yield from _seeds(*heads)
    for level in shown_levels:
        cells = [
            shown(next(one["actual"] for one in row["results"][how]["levels"] if abs(one["wanted"] - level) < 1e-9))
            for how in ("raw", "held")
            for row in rows
        ]
        yield f"| {level:g} | {' | '.join(cells)} |"


def reach_z() -> Iterator[str]:
    """What comes back beyond the data on a scale without ends, as written and held to the reach."""
    rows = next(rows for (how,), rows in _by(read("reach"), "how").items() if how.startswith("z"))
    return _levels(rows, (-2.5, -2, -1, 0, 1, 1.5, 2, 2.5, 3, 3.5, 4))


def reach_unit() -> Iterator[str]:
    """What comes back towards the top of the usual scale, as written and held to the reach."""
    rows = next(rows for (how,), rows in _by(read("reach"), "how").items() if how.startswith("1"))
    return _levels(rows, (0, 0.25, 0.5, 0.75, 0.85, 0.9, 0.95, 1))


_RULES = {
    "best": "`best`: rows of the best fiftieth",
    "front": "`front`: the one best row",
    "achieved": "`achieved`: what brought most on validation topics",
    "maxima": "the most of every reward that weighs anything",
    "l2": "Rewards-in-Context's l2 map",
}


def mixes() -> Iterator[str]:
    """Each way to find targets for a mix: mean weighted reward over eleven weightings, and the hypervolume."""
    heads = "targets", "mean weighted reward: seed 0", "seed 1", "seed 2", "better than `best` by: seed 0", "seed 1"
    yield from _seeds(*heads, "seed 2", "hypervolume: seed 0", "seed 1", "seed 2")
    (rows,) = _by(read("mixes")).values()
    for rule, told in _RULES.items():
        found = [row["results"]["mixes"]["rules"][rule] for row in rows]
        cells = [
            shown(one[name]) if (rule, name) != ("best", "better_than_best") else "–"
            for name in ("mean", "better_than_best", "hypervolume")
            for one in found
        ]
        yield f"| {told} | {' | '.join(cells)} |"


def mixes_each() -> Iterator[str]:
    """Each weighting and rule: the weighted reward, seed by seed."""
    (rows,) = _by(read("mixes")).values()
    yield from _seeds("weights kindness : detail", *(f"`{rule}`" for rule in _RULES), "data")
    steps = len(rows[0]["results"]["mixes"]["rules"]["best"]["weighted"]) - 1
    for i in range(steps + 1):
        cells = [
            ", ".join(f"{row['results']['mixes']['rules'][rule]['weighted'][i]['value']:.2f}" for row in rows)
            for rule in _RULES
        ]
        yield f"| {i / steps:g} : {1 - i / steps:.1g} | {' | '.join(cells)} | 0 |"


def spoofs() -> Iterator[str]:
    """Each forgery: how far it moves the actual reward, and how far it is obeyed, escaped and let through."""
    heads = "text in the prompt", "spoof", "with less without: seed 0", "seed 1", "seed 2", "high less low: seed 0"
    yield from _seeds(*heads, "seed 1", "seed 2")
    (rows,) = _by(read("spoof")).values()
    for text in rows[0]["results"]["escape"]["shift"]:
        for how in ("escape", "allow"):
            cells = [shown(row["results"][how][what][text]) for what in ("shift", "obeyed") for row in rows]
            forged = text.format(one="…", other="…").replace("\n", "⏎")
            yield f"| {'all of them' if text == 'all' else f'`{forged}`'} | {how} | {' | '.join(cells)} |"


def guidance() -> Iterator[str]:
    """Each way to draw tokens: tracking and price, for policies that were and were not shown unasked rows."""
    heads = "all lines left out of", "drawn with", "reward", "within prompts: seed 0", "seed 1", "seed 2"
    yield from _seeds(*heads, "mean error", "different pairs of words")
    for (drop,), rows in sorted(_by(read("guidance"), "drop_all").items()):
        for how in rows[0]["results"]["evals"]:
            found = [_policy(row, how) for row in rows]
            distinct = ", ".join(f"{one['diversity']['distinct_2']['value']:.2f}" for one in found)
            for reward in found[0]["rewards"]:
                within = " | ".join(shown(one["rewards"][reward]["within"]["spearman"]) for one in found)
                errors = ", ".join(f"{one['rewards'][reward]['error']['mean_absolute']['value']:.3f}" for one in found)
                yield f"| {float(drop):.0%} of rows | {how} | {reward} | {within} | {errors} | {distinct} |"


def _measured(study: str, table: Callable[[], Iterator[str]]) -> Callable[[], Iterator[str]]:
    """Return a table that says so where its study has left no results."""

    def lines() -> Iterator[str]:
        if (RESULTS / f"asking-{study}.jsonl").exists():
            yield from table()
        else:
            yield f"Not measured yet: `python studies/run.py studies/asking/{study}.yaml -o study` does it."

    return lines


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "asking-format": _measured("format", formats),
    "asking-stories": _measured("stories", stories),
    "asking-many": _measured("many", many),
    "asking-thresholds": _measured("thresholds", thresholds),
    "asking-reach-z": _measured("reach", reach_z),
    "asking-reach-unit": _measured("reach", reach_unit),
    "asking-mixes": _measured("mixes", mixes),
    "asking-mixes-each": _measured("mixes", mixes_each),
    "asking-spoof": _measured("spoof", spoofs),
    "asking-guidance": _measured("guidance", guidance),
}
