"""Write report.html: one self-contained page with tables, plots and a browser of the samples.

The page loads nothing from the network. Text from models and data is escaped, and a content security policy allows
only the page's own script and style, by their hashes.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files as package_files
from typing import Any, TypeVar

import jinja2

from irlhf.core.bootstrap import few_prompts
from irlhf.core.console import clean
from irlhf.core.example import Example, as_text
from irlhf.plotting import style
from irlhf.plotting.types import PlotData
from irlhf.policy.evaluation_file import verdicts
from irlhf.policy.targets import weights_of

T = TypeVar("T")

SAMPLES = 600  # most samples in the browser, to limit the size of the page

_FIRST = "target-actual"  # the plot above the tables
_SHOWN = 6  # samples above the tables
_TEXT = 300  # most characters of each of their texts


def report(data: PlotData) -> str:
    """Return the page as HTML."""
    known = [policy_entry for evaluated in data.evaluations.values() for policy_entry in evaluated["policies"].items()]
    pictures = [
        (name, picture.caption, base64.b64encode(picture.png).decode(), picture.width)
        for name, picture in data.pictures.items()
    ]
    rows = _rows(data, dict(known))
    script, look = _part("report.js"), _part("report.css")
    return (
        _jinja()
        .get_template("report.html.jinja")
        .render(
            version=version("irlhf"),
            pictures=[picture for picture in pictures if not picture[0].startswith(_FIRST)],
            first=[picture for picture in pictures if picture[0].startswith(_FIRST)],
            few=[_few(rows, evaluated) for evaluated in data.evaluations.values()],
            evaluations={path: _evaluation(policy_entry) for path, policy_entry in data.evaluations.items()},
            samples=_as_json(rows),
            scaled=any(row["actual"] for row in rows),
            shown=len(_taken(data.samples)),
            total=len(data.samples),
            sources=data.sources,
            script=script,
            look=look,
            allowed={"script": _allowed(script), "style": _allowed(look)},
        )
    )


def _jinja() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(number=_number, between=style.between, ratio=style.ratio, mix=style.mix)
    made.filters["compared"] = style.compared
    made.filters["zip"] = zip
    made.tests["measured"] = style.measured
    return made


def _part(name: str) -> str:
    return package_files("irlhf.plotting").joinpath(name).read_text(encoding="utf-8")


def _allowed(text: str) -> str:
    """Return the hash of an inline script or style for the content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _evaluation(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return an evaluation with a distinct label for each policy."""
    labels = {}
    for key, look in style.looks(evaluation["policies"]).items():
        name = evaluation["policies"][key]["name"]
        labels[key] = name + look.label.removeprefix(style.short(name))
    measured = [metrics for policy in evaluation["policies"].values() for metrics in policy["rewards"].values()]
    prompts = {policy["name"]: policy["prompts"] for policy in evaluation["policies"].values()}
    prompts |= {name: metrics["prompts"] for name, metrics in evaluation["pairs"].get("rewards", {}).items()}
    return {
        **evaluation,
        "labels": labels,
        "verdicts": {key: list(verdicts(policy)) for key, policy in evaluation["policies"].items()},
        "narrow": few_prompts(prompts),
        "tolerance": next((metrics["success"]["tolerance"] for metrics in measured), 0),
    }


def _number(value: object, digits: int = 2) -> str:
    return style.number(value, digits) if isinstance(value, int | float) else "not available"


def _taken(samples: Sequence[T]) -> Sequence[T]:
    return samples[:: max(1, -(-len(samples) // SAMPLES))]


def _rows(data: PlotData, policies: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the samples of the browser. `actual` is on the scale of the target; empty if the policy is not found."""
    scaled: dict[int, dict[str, float]] = {}
    for digest, policy in data.policies.items():
        own = [i for i, sample in enumerate(data.samples) if sample.policy == digest]
        scaled |= zip(own, policy.scaled_rows([data.samples[i] for i in own]), strict=True)
    return [
        {
            "policy": clean(_policy_of(sample, policies)),
            "prompt": clean(as_text(sample.prompt)),
            "completion": clean(as_text(sample.completion)),
            "mix": clean(style.mix(weights_of(sample.target))) if weights_of(sample.target) else "",
            "target": _cleaned(sample.wishes),
            "actual": _cleaned(scaled.get(i, {})),
            "raw": _cleaned(sample.rewards),
            "gold": _cleaned(sample.gold),
        }
        for i, sample in _taken([*enumerate(data.samples)])
    ]


def _cleaned(numbers: Mapping[str, float]) -> dict[str, float]:
    return {clean(name): number for name, number in numbers.items()}


def _as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as JSON that is safe inside a script element."""
    text = json.dumps(rows, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _few(rows: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a few samples of the first policy, spread over the targets of its first reward, with short texts."""
    policy = next(iter(evaluation["policies"].values()), None)
    own = [row for row in rows if policy and row["policy"] == clean(policy["name"])]
    reward = next((name for row in own for name in row["target"]), "")
    own.sort(key=lambda row: float(row["target"].get(reward, 0)))
    chosen = [own[i] for i in style.spread(len(own), _SHOWN)]
    return [{**row, **{part: _cut(row[part]) for part in ("prompt", "completion")}} for row in chosen]


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else text[:_TEXT] + "…"


def _policy_of(sample: Example, policies: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the name of a sample's policy in the evaluation, or its digest."""
    how = sample.to_json().get("kept", "")
    key = f"{sample.policy}, {how} of {sample.candidates}" if how else sample.policy
    return str(policies[key]["name"] if key in policies else key)
