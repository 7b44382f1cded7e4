"""Measure the coverage of eval's 95% intervals, in simulated studies with known true values.

    python benchmarks/coverage.py [--studies 1000] [--samples 8] -o docs/results/coverage.json

A study has `samples` targets, uniform in [0, 1], for each of 20, 50 or 200 prompts. The actual reward is

    actual = 0.7 target + ease + noise         ease ~ N(0, 0.15) per prompt, noise ~ N(0, 0.2) per sample

so samples of one prompt are correlated. The true value is the same figure on a hundred thousand prompts.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np

from irlhf.core.bootstrap import Bootstrap
from irlhf.core.example import Example
from irlhf.evaluation.arms import Pair
from irlhf.evaluation.tracking import own_figures, tracking

CLUSTERS = (20, 50, 200)
FIGURES = ("pooled spearman", "pooled slope", "within spearman", "error", "success")
TOLERANCE = 0.1
_TRUTH = 100_000  # prompts
_NOBODY = Example(id="none", prompt="")


def study(prompts: int, samples: int, rng: np.random.Generator) -> list[Pair]:
    """Return the samples of one synthetic study."""
    asked = rng.random((prompts, samples))
    actual = 0.7 * asked + rng.normal(0, 0.15, (prompts, 1)) + rng.normal(0, 0.2, (prompts, samples))
    return [
        Pair(f"p{i}", float(a), float(b), float(a), _NOBODY)
        for i in range(prompts)
        for a, b in zip(asked[i], actual[i], strict=True)
    ]


def truth(samples: int) -> dict[str, float]:
    """Return the figures without error to speak of."""
    from scipy import stats

    rng = np.random.default_rng(99)
    asked = rng.random(samples * _TRUTH)
    actual = 0.7 * asked + rng.normal(0, 0.15, samples * _TRUTH) + rng.normal(0, 0.2, samples * _TRUTH)
    missed = np.abs(asked - actual)
    own = own_figures(study(_TRUTH, samples, rng))
    return {
        "pooled spearman": float(stats.spearmanr(asked, actual).statistic),
        "pooled slope": 0.7,
        "within spearman": float(np.mean([one["spearman"] for one in own.values()])),
        "error": float(missed.mean()),
        "success": float((missed <= TOLERANCE).mean()),
    }


def coverage(prompts: int, samples: int, studies: int, wanted: dict[str, float]) -> dict[str, float]:
    """Return the share of studies whose interval holds the truth."""
    held: Counter[str] = Counter()
    for number in range(studies):
        found = tracking(study(prompts, samples, np.random.default_rng(number)), TOLERANCE, Bootstrap(1000, number))
        flat = {f"{kind} {name}": one for kind in ("pooled", "within") for name, one in found[kind].items()}
        flat |= {"error": found["error"]["mean_absolute"], "success": found["success"]["share"]}
        for name in FIGURES:
            held[name] += flat[name]["low"] <= wanted[name] <= flat[name]["high"]
    return {name: held[name] / studies for name in FIGURES}


def main() -> None:
    """Run the simulation and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    wanted = truth(given.samples)
    shares = {}
    for prompts in CLUSTERS:
        shares[str(prompts)] = coverage(prompts, given.samples, given.studies, wanted)
        print(prompts, shares[str(prompts)], flush=True)
    result = {"studies": given.studies, "samples a prompt": given.samples, "truth": wanted, "coverage": shares}
    given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
