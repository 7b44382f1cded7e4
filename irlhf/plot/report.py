"""report.html: one self-contained page with the pictures, the figures and a browser of the samples.

It asks nothing of the network, and text from models and data is escaped: hostile samples stay text.
"""

import base64
import io
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files as package_files
from typing import Any

import jinja2

from irlhf.console import clean
from irlhf.records import Example, as_text

SAMPLES = 600  # that the browser holds at most, to keep the page light

_JINJA = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def report(figures: Iterable[tuple[str, Any]], evaluation: dict[str, Any], samples: Sequence[Example]) -> str:
    """Return the page as HTML."""
    source = package_files("irlhf.plot").joinpath("report.html.jinja").read_text(encoding="utf-8")
    names = {digest: policy["name"] for digest, policy in evaluation.get("policies", {}).items()}
    return _JINJA.from_string(source).render(
        pictures=[(name, _embedded(figure)) for name, figure in figures],
        policies=list(evaluation.get("policies", {}).values()),
        tradeoff=evaluation.get("tradeoff", []),
        settings=evaluation.get("settings", {}),
        files=evaluation.get("samples", []),
        samples=_rows(samples, names),
        shown=min(SAMPLES, len(samples)),
        total=len(samples),
    )


def _embedded(figure: Any) -> str:
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=130)
    return base64.b64encode(held.getvalue()).decode()


def _rows(samples: Sequence[Example], names: dict[str, str]) -> str:
    """Return the samples as JSON that can stand inside a script element."""
    step = max(1, -(-len(samples) // SAMPLES))
    rows = [
        {
            "policy": names.get(sample.policy, sample.policy),
            "prompt": clean(as_text(sample.prompt)),
            "completion": clean(as_text(sample.completion)),
            "target": {name: clean(text) for name, text in sample.target.items()},
            "asked": dict(sample.asked),
            "rewards": {name: round(number, 3) for name, number in sample.rewards.items()},
        }
        for sample in samples[::step]
    ]
    text = json.dumps(rows, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
