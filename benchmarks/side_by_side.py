"""Arms measured beside each other in one process, taking turns, so that a busy machine is busy for all."""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

Arm = Callable[[], Any]


def measure(arms: Mapping[str, Arm], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of every arm, `repeats` times each; the order turns round each time, a first time is free.

    An arm that has something to set up first returns the seconds of what counts.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(repeats + 1):
        for name in list(arms)[:: 1 if repeat % 2 else -1]:
            started = time.perf_counter()
            took = arms[name]()
            if repeat:
                seconds[name].append(took if isinstance(took, float) else time.perf_counter() - started)
    return seconds


def told(seconds: Mapping[str, list[float]], work: float, ours: str) -> dict[str, Any]:
    """Return units of work a second (median, least, most) of every arm, and how ours stands to the best of the rest."""
    rates = {name: sorted(work / one for one in times) for name, times in seconds.items()}
    middle = {name: statistics.median(found) for name, found in rates.items()}
    best = max((name for name in middle if name != ours), key=lambda name: middle[name])
    ratios = [theirs / mine for mine, theirs in zip(seconds[ours], seconds[best], strict=True)]
    return {
        "per_second": {name: spread(found) for name, found in rates.items()},
        "best_peer": best,
        "ratio": spread(ratios),  # of pairs measured one after the other
    }


def options(doc: str) -> argparse.ArgumentParser:
    """Return the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser


def finish(output: Path, found: Mapping[str, Any]) -> None:
    """Write the result and show it."""
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    text = json.dumps({"machine": machine, **found}, indent=2)
    output.write_text(text + "\n")
    print(text)


def matmul_peak() -> float:
    """Return the machine's GFLOP/s in single precision on matrices of 2,048 (median of 5)."""
    a = torch.rand(2048, 2048)
    took = []
    for _ in range(6):
        started = time.perf_counter()
        torch.mm(a, a)
        took.append(time.perf_counter() - started)
    return 2 * 2048**3 / statistics.median(took[1:]) / 1e9


def spread(values: list[float]) -> dict[str, float | int]:
    """Return median, least, most and number of what was measured."""
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
        "n": len(values),
    }
