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
from typing import Any

import jinja2

from irlhf.core.console import clean
from irlhf.core.example import Example, as_text
from irlhf.plotting import formatting, style
from irlhf.plotting.types import PlotData
from irlhf.policy.targets import weights_of

SAMPLES = 600  # most samples in the browser, to limit the size of the page

_MISSING = "not available"


def report(data: PlotData) -> str:
    """Return the page as HTML."""
    known = [policy_entry for evaluated in data.evaluations.values() for policy_entry in evaluated["policies"].items()]
    pictures = [
        (name, policy_entry.caption, base64.b64encode(policy_entry.png).decode())
        for name, policy_entry in data.pictures.items()
    ]
    script, look = _part("report.js"), _part("report.css")
    page = _jinja().get_template("report.html.jinja")
    return page.render(
        version=version("irlhf"),
        pictures=pictures,
        evaluations={path: _evaluation(policy_entry) for path, policy_entry in data.evaluations.items()},
        samples=_rows(data.samples, dict(known)),
        shown=len(_taken(data.samples)),
        total=len(data.samples),
        sources=data.sources,
        script=script,
        look=look,
        allowed={"script": _allowed(script), "style": _allowed(look)},
    )


def _jinja() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(number=_number, between=formatting.between, ratio=formatting.ratio, mix=_mix)
    made.filters["zip"] = zip
    made.tests["measured"] = formatting.measured
    return made


def _part(name: str) -> str:
    return package_files("irlhf.plotting").joinpath(name).read_text(encoding="utf-8")


def _allowed(text: str) -> str:
    """Return the hash of an inline script or style for the content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _evaluation(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return an evaluation with a distinct label for each policy."""
    labels = {
        key: _label(look, evaluation["policies"][key]) for key, look in style.looks(evaluation["policies"]).items()
    }
    measured = [metrics for policy in evaluation["policies"].values() for metrics in policy["rewards"].values()]
    return {
        **evaluation,
        "labels": labels,
        "tolerance": next((metrics["success"]["tolerance"] for metrics in measured), 0),
    }


def _label(look: style.Look, policy: Mapping[str, Any]) -> str:
    name: str = policy["name"]
    return name + look.label.removeprefix(style.short(name))


def _number(value: object, digits: int = 2) -> str:
    """Return a number as text, or "not available"."""
    if not isinstance(value, int | float):
        return _MISSING
    return formatting.number(value, digits)


def _mix(weights: Mapping[str, float]) -> str:
    terms = [name if weight == 1 else f"{weight:g} × {name}" for name, weight in weights.items() if weight]
    return " + ".join(terms) or "nothing"


def _taken(samples: Sequence[Example]) -> Sequence[Example]:
    return samples[:: max(1, -(-len(samples) // SAMPLES))]


def _rows(samples: Sequence[Example], policies: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the samples as JSON that is safe inside a script element."""
    rows = [
        {
            "policy": clean(_policy_of(sample, policies)),
            "prompt": clean(as_text(sample.prompt)),
            "completion": clean(as_text(sample.completion)),
            "mix": clean(_mix(weights_of(sample.target))) if weights_of(sample.target) else "",
            "target": {clean(name): number for name, number in sample.prompt_numbers.items()},
            "actual": {clean(name): number for name, number in sample.rewards.items()},
            "gold": {clean(name): number for name, number in sample.gold.items()},
        }
        for sample in _taken(samples)
    ]
    text = json.dumps(rows, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy_of(sample: Example, policies: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the name of a sample's policy in the evaluation, or its digest."""
    how = sample.to_json().get("kept", "")
    key = f"{sample.policy}, {how} of {sample.candidates}" if how else sample.policy
    return str(policies[key]["name"] if key in policies else key)
