"""The tables of docs/training.md, from what the studies in studies/steering/ left in docs/results/."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from asking import shown

RESULTS = Path(__file__).parent / "results"

Row = dict[str, Any]
STUDIES = {
    "hh": "pairs of one turn, two decimals, 299 steps",
    "tenths": "pairs of one turn, one decimal, 494 steps",
    "turns": "pairs of one and of several turns, one decimal, 505 steps",
    "guidance": "pairs of one turn, one decimal, 494 steps",
}


def cells() -> Iterator[tuple[str, Row]]:
    """Yield the first columns of every cell that has results, and the cell."""
    for study, rows in STUDIES.items():
        path = RESULTS / f"steering-{study}.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            row = json.loads(line)
            cell = row["cell"]
            guided = f", guidance {cell['weight']} against {cell['against']}" if "against" in cell else ""
            yield f"| {rows} | `{cell['objective']}`{guided} | {cell['seed']} |", row


def policy_of(row: Row, evaluation: str = "tracking") -> Row:
    """Return the evaluation of the only policy of a cell."""
    (policy,) = row["results"][evaluation]["policies"].values()
    return dict(policy)


def tracking() -> Iterator[str]:
    """Each cell and reward: how well the actual reward follows its target."""
    yield "| rows | objective | seed | reward | rank correlation within prompts | the same, given the length |"
    yield "|---|---|---|---|---|---|"
    for columns, row in cells():
        for texts_name, prompts in (("texts", ""), ("texts_turns", ", prompts of several turns")):
            for name, found in row["results"].get(texts_name, {"tracking": {}})["tracking"].items():
                figures = f"{shown(found['plain'])} | {shown(found['partial'])}"
                yield f"{columns} {name}{prompts} | {figures} |"


def texts() -> Iterator[str]:
    """Each cell: the loss, what the line tells, and the diversity of the texts."""
    yield (
        "| rows | objective | seed | loss under own targets | `sibling` information, nats | its margin, nats "
        "| distinct-2 of all | at low, medium, high `helpful` | entropy, nats a token |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for columns, row in cells():
        found = row["results"]["texts"]
        steering = found["training"]["steering"]["sibling"]
        levels = found["levels"]["helpful"]
        trained = [
            f"{found['curve'][-1]['validation_loss']:.3f}",
            shown(steering["information"]),
            shown(steering["margin"]),
        ]
        figures = [
            *(["as above"] * 3 if "against" in row["cell"] else trained),
            f"{found['all']['distinct_2']:.2f}",
            ", ".join(f"{levels[level]['distinct_2']:.2f}" for level in ("low", "medium", "high")),
            f"{found['all']['entropy']:.2f}",
        ]
        yield f"{columns} {' | '.join(figures)} |"


def dials() -> Iterator[str]:
    """Each cell and reward: how far its own target and the other one move it."""
    yield "| rows | objective | seed | reward | moved by its own target | by the other target |"
    yield "|---|---|---|---|---|---|"
    for columns, row in cells():
        crosstalk = policy_of(row)["crosstalk"]
        for number, name in enumerate(crosstalk["rewards"]):
            own, other = crosstalk["slopes"][number][number], crosstalk["slopes"][1 - number][number]
            yield f"{columns} {name} | {shown(own)} | {shown(other)} |"


def alone() -> Iterator[str]:
    """Each reward and seed: how far a request for this reward alone moves it."""
    yield "| prompt | reward | seed | requested at p10 | at p90 | difference | prompts |"
    yield "|---|---|---|---|---|---|---|"
    for line in (RESULTS / "steering-alone.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        cell, found = row["cell"], row["results"]["alone"]
        lines = "both lines" if cell["filled"] else "one line"
        figures = " | ".join(shown(found[name]) for name in ("low", "high", "difference"))
        yield f"| {lines} | {cell['reward']} | {cell['seed']} | {figures} | {found['prompts']} |"


def quickstart_model() -> Iterator[str]:
    """Each way of sampling the policy of `quickstart --model`: the rank correlations within prompts."""
    yield "| sampling | `personal`: rank correlation within prompts | `plain` | answers, prompts |"
    yield "|---|---|---|---|"
    for name, words in (
        ("quickstart-model", "as the quickstart: temperature 0.7, guidance 2 against opposite"),
        ("quickstart-model-t1-guided", "temperature 1, guidance 2 against opposite"),
        ("quickstart-model-t1", "temperature 1, no guidance"),
    ):
        (policy,) = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["policies"].values()
        found = [shown(policy["rewards"][reward]["within"]["spearman"]) for reward in ("personal", "plain")]
        yield f"| [{words}](results/{name}.json) | {' | '.join(found)} | {policy['samples']}, {policy['prompts']} |"


def samples() -> Iterator[str]:
    """Each prompt: the completion at low, medium and high `helpful`, with its actual rewards."""
    for line in (RESULTS / "steering-samples.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield f"**{escaped(row['prompt'])}**"
        yield ""
        yield "| target | actual | completion |"
        yield "|---|---|---|"
        for level in ("low", "medium", "high"):
            sample = row[level]
            target, actual = (
                "<br>".join(f"{name} {number:{form}}" for name, number in numbers.items())
                for numbers, form in ((sample["target"], ".1f"), (sample["rewards"], "+.2f"))
            )
            yield f"| {target} | {actual} | {escaped(sample['completion'])} |"
        yield ""


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is, in one line."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", " ".join(text.split()))


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "steering-tracking": tracking,
    "steering-texts": texts,
    "steering-dials": dials,
    "steering-alone": alone,
    "steering-samples": samples,
    "quickstart-model": quickstart_model,
}
