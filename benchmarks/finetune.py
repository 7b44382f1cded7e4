"""How fast does finetune learn, beside transformers' Trainer and TRL's SFTTrainer on the same token ids?

    python benchmarks/finetune.py MODEL DATA -o docs/results/finetune-MODEL.json [--rows 64] [--repeats 5]

MODEL is `mid` (a Llama of 15 million parameters, vocabulary 30,522, from scratch; DATA is a file of HH pairs) or
`tiny` (the quickstart's base; DATA is the quickstart's scored.jsonl). Every arm begins with the same weights,
sees the same rows once and has its loss on completion tokens alone. The peers' batch sizes and grouping by
length are swept first, without TRL's defaults that cost half its speed on a processor (bf16, gradient
checkpointing); TRL with those defaults runs once, at its best batch size. Then all arms are timed in turns, the
order reversed every other time. Checkpoints are off everywhere. Needs `pip install irlhf[bench]`.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from arms import CONTEXT, PEERS, RATE, Bench, Setting, families, material, ours
from side_by_side import finish, matmul_peak, measure, options, told
from transformers import Trainer

from irlhf.training.batching import Encoded
from irlhf.training.callbacks import TrainingPlan
from irlhf.training.settings import BUCKETED, SHARED

BATCHES = {"mid": (4, 16), "tiny": (8, 16, 32, 64, 128)}

Run = Callable[[Any], float]  # trains a model over the rows once and returns the seconds


def main() -> None:
    """Sweep, time, write the result."""
    parser = options(__doc__ or "")
    parser.add_argument("model", choices=sorted(CONTEXT))
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        model, bench = material(given.model, given.data, (given.rows, 0), Path(folder))
        arms, swept = _swept(given.model, model, bench)
        seconds = measure({name: partial(run, model) for name, run in arms.items()}, given.repeats)
    against = {peer: {name: seconds[name] for name in seconds if name in ("irlhf", peer)} for peer in PEERS}
    peak, work = matmul_peak(), _work(model, bench.rows)
    rate = bench.completion / min(seconds["irlhf"])
    found = {
        "model": f"{given.model}, {sum(one.numel() for one in model.parameters()):,} parameters",
        "rows": len(bench.rows),
        "tokens": sum(map(len, bench.rows)),
        "completion tokens": bench.completion,
        "trl": version("trl"),
        "swept": swept,
        **{f"against {peer}": told(mine, bench.completion, "irlhf") for peer, mine in against.items()},
        "matmul GFLOP/s": round(peak),
        "share of matmul peak": round(work * rate / bench.completion / peak, 3),
    }
    finish(given.output, found)


def _swept(kind: str, model: Any, bench: Bench) -> tuple[dict[str, Run], dict[str, dict[str, float]]]:
    """Return every arm at its best setting, and what the sweep found (completion tokens/s, one run each)."""
    settings = [Setting(batch, grouped) for batch in BATCHES[kind] for grouped in (True, False)]
    laid = {name: families(bench.rows, name, min(BATCHES[kind])) for name in (SHARED, BUCKETED)}
    runs: dict[str, dict[str, Run]] = {
        "irlhf": {
            f"{batch}{', prompts shared' if name == SHARED else ''}": partial(
                _timed, partial(ours, bench, laid[name], TrainingPlan(0, batch, RATE, 0, layout=name))
            )
            for batch in BATCHES[kind]
            for name in laid
        }
    }
    runs |= {
        peer: {str(one): partial(_timed, partial(make, bench, one)) for one in settings} for peer, make in PEERS.items()
    }
    best: dict[str, Run] = {}
    swept: dict[str, dict[str, float]] = {}
    for arm, mine in runs.items():
        swept[arm] = {name: round(bench.completion / run(model)) for name, run in mine.items()}
        chosen = max(swept[arm], key=swept[arm].__getitem__)
        best[arm] = mine[chosen]
        print(arm, swept[arm], flush=True)
    slow = replace(next(one for one in settings if str(one) == chosen), defaults=True)
    swept["TRL with its defaults"] = {chosen: round(bench.completion / _timed(partial(PEERS[arm], bench, slow), model))}
    return best, swept


def _timed(make: Callable[[Any], Trainer], model: Any) -> float:
    made = make(model)
    started = time.perf_counter()
    made.train()
    return time.perf_counter() - started


def _work(model: Any, rows: Sequence[Encoded]) -> float:
    """Return the GFLOP that the rows need at least: 6 a weight and token, the head on completion tokens alone.

    (Kaplan et al. 2020, arXiv 2001.08361, section 2.1; attention between tokens is left out.)
    """
    head = model.get_output_embeddings().weight
    tied = head is model.get_input_embeddings().weight
    body = sum(one.numel() for one in model.parameters()) - head.numel() * (1 if tied else 2)
    completion = sum(len(row.completion) for row in rows)
    return float(6 * (body * sum(map(len, rows)) + head.numel() * completion) / 1e9)


if __name__ == "__main__":
    main()
