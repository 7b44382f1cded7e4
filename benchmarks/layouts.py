"""How fast does finetune learn in each of its layouts: bucketed, shared?

    python benchmarks/layouts.py MODEL DATA -o docs/results/bench-layouts-MODEL.json [--rows 64] [--repeats 5]

MODEL and DATA are those of benchmarks/finetune.py. Every layout begins with the same weights and sees the same rows
once, 16 a step. All are timed in turns, the order reversed every other time; the ratio of each to `bucketed` is of
pairs measured in the same turn.
"""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from arms import CONTEXT, RATE, families, material, ours
from side_by_side import finish, measure, options, spread

from irlhf.training.callbacks import TrainingPlan
from irlhf.training.settings import BUCKETED, SHARED

ROWS_A_STEP = 16


def main() -> None:
    """Time every layout, write the result."""
    parser = options(__doc__ or "")
    parser.add_argument("model", choices=sorted(CONTEXT))
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        model, bench = material(given.model, given.data, (given.rows, 0), Path(folder))

        def train(layout: str) -> float:
            laid = families(bench.rows, layout, ROWS_A_STEP)
            made = ours(bench, laid, TrainingPlan(0, ROWS_A_STEP, RATE, 0, layout=layout), model)
            started = time.perf_counter()
            made.train()
            return time.perf_counter() - started

        layouts = (BUCKETED, SHARED)
        seconds = measure({layout: partial(train, layout) for layout in layouts}, given.repeats)
    found: dict[str, Any] = {}
    for layout, mine in seconds.items():
        ratios = [theirs / one for theirs, one in zip(seconds[BUCKETED], mine, strict=True)]
        rates = spread([bench.completion / one for one in mine])
        found[layout] = {"per_second": rates, "to bucketed": spread(ratios)}
    size = sum(one.numel() for one in model.parameters())
    told = {"rows": len(bench.rows), "completion tokens": bench.completion}
    finish(given.output, {"model": f"{given.model}, {size:,} parameters", **told, "layouts": found})


if __name__ == "__main__":
    main()
