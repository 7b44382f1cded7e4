"""The tables of docs/online.md, from what studies/online/rounds.yaml left in docs/results/."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from asking import shown

RESULTS = Path(__file__).parent / "results" / "online-rounds.jsonl"

Row = dict[str, Any]

# What each arm is called in the tables.
_NAMES = {
    "online": "rounds, entropy guard",
    "unguarded": "rounds, no guard",
    "random-drop": "rounds, as many dropped by lot",
    "expert": "expert iteration",
    "offline": "offline rows alone",
    "start": "no training",
}

# The runs without replay, by their guard.
_GUARDS = {
    "none": "bare-unguarded",
    "`entropy=0.85`": "bare",
    "by lot, as many": "bare-random-drop",
    "`entropy-share=0.3`": "bare-share",
    "`kl=8`": "bare-kl",
}


def read() -> list[Row]:
    """Return the study's cells, in the order of their seeds."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines()
    return sorted(map(json.loads, lines), key=lambda row: int(row["cell"]["seed"]))


def final() -> Iterator[str]:
    """Each seed and arm with replay: gold on test prompts, what it is above, and what it costs in diversity."""
    yield from _measured("replay=0.5")


def bare() -> Iterator[str]:
    """The same without replay."""
    yield from _measured("replay=0")


def _measured(folder: str) -> Iterator[str]:
    yield (
        "| seed | arm | gold | reward | gold above offline rows alone | above no training"
        " | distinct-2 (of offline's) | unique | entropy |"
    )
    yield "|---" * 9 + "|"
    for row in read():
        found = row["results"]["measured"][folder]
        for arm, name in _NAMES.items():
            one = found[arm]
            offline = found["offline"]["distinct_2"]["mix"]["value"]
            distinct = one["distinct_2"]["mix"]["value"]
            above = [shown(one["less"][other]) if arm != other else "–" for other in ("offline", "start")]
            cells = [row["cell"]["seed"], name, shown(one["gold"]), shown(one["reward"]), *above]
            cells += [f"{distinct:.3f} ({distinct / offline - 1:+.1%})", f"{one['unique']['mix']['value']:.3f}"]
            cells += [f"{one['entropy']['mix']:.2f}"]
            yield f"| {' | '.join(map(str, cells))} |"


def rounds() -> Iterator[str]:
    """The loop itself, round by round, on the watched validation prompts."""
    yield "| seed | round | while drawn | reward | gold | tracking | entropy | KL | distinct-2 | unique | words |"
    yield "|---" * 11 + "|"
    for row in read():
        for one in row["results"]["rounds"]["rounds"]:
            drawn = f"{one['reward in training']['value']:.2f}" if one["round"] else "–"
            tracking = ", ".join(f"{figure['value']:.2f}" for figure in one["tracking"].values())
            cells = [row["cell"]["seed"], one["round"], drawn, shown(one["reward"]), shown(one["gold"]), tracking]
            cells += [f"{one['entropy']['value']:.2f}", f"{one['kl']['value']:.1f}"]
            cells += [f"{one['distinct_2']['value']:.3f}", f"{one['unique']['value']:.3f}"]
            yield f"| {' | '.join(map(str, [*cells, format(one['words']['value'], '.1f')]))} |"


def guards() -> Iterator[str]:
    """Without replay: each guard after the last round, on the watched prompts, and what it dropped."""
    yield "| seed | guard | dropped in each round | reward | gold | entropy | KL | distinct-2 |"
    yield "|---" * 8 + "|"
    for row in read():
        results = row["results"]
        yield _guard(row, "before the rounds", "–", results["bare"]["rounds"][0])
        for name, key in _GUARDS.items():
            each = results[key]["rounds"]
            dropped = ", ".join(f"{1 - one['drawn']['kept'] / one['drawn']['samples']:.0%}" for one in each[1:])
            yield _guard(row, name, dropped, each[-1])


def _guard(row: Row, name: str, dropped: str, one: Row) -> str:
    cells = [row["cell"]["seed"], name, dropped, shown(one["reward"]), shown(one["gold"])]
    cells += [f"{one['entropy']['value']:.2f}", f"{one['kl']['value']:.1f}", f"{one['distinct_2']['value']:.3f}"]
    return f"| {' | '.join(map(str, cells))} |"


def sides() -> Iterator[str]:
    """What the guard kept and what it dropped, mean over the rounds of the loop with replay."""
    yield "| seed | round | | n | weighted reward | entropy | tokens |"
    yield "|---" * 7 + "|"
    for row in read():
        for one in row["results"]["rounds"]["rounds"][1:]:
            for side, found in one["sides"].items():
                figures = f"{found['reward']:.2f} | {found['entropy']:.2f} | {found['tokens']:.0f}"
                yield f"| {row['cell']['seed']} | {one['round']} | {side} | {found['n']:,} | {figures} |"


def bands() -> Iterator[str]:
    """How diverse offline rows are by themselves, from the mean on, along their weighted reward."""
    found = json.loads(RESULTS.with_name("online-bands.json").read_text(encoding="utf-8"))
    yield "| seed | weighted reward of offline rows: distinct-2 |"
    yield "|---|---|"
    for name, each in found.items():
        told = ", ".join(f"{one['reward']:.2f}: {one['distinct_2']['value']:.3f}" for one in each)
        yield f"| {name.removeprefix('seed=')} | {told} |"


def _there(table: Callable[[], Iterator[str]]) -> Callable[[], Iterator[str]]:
    """Return a table that says so where its study has left no results."""

    def lines() -> Iterator[str]:
        if RESULTS.exists():
            yield from table()
        else:
            yield "Not measured yet: `python studies/run.py studies/online/rounds.yaml -o study` does it."

    return lines


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "online-final": _there(final),
    "online-rounds": _there(rounds),
    "online-bare": _there(bare),
    "online-guards": _there(guards),
    "online-sides": _there(sides),
    "online-bands": bands,
}
