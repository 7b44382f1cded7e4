"""How long until a held-out loss is reached, by finetune, by transformers' Trainer and by TRL's SFTTrainer?

    python benchmarks/to_loss.py HH.jsonl.gz -o docs/results/bench-to-loss.json [--seeds 3] [--steps 40]

The model is `mid` of benchmarks/finetune.py, and the peers run at their best settings of that benchmark's result
file, without TRL's defaults that cost it half its speed on a processor (bf16, gradient checkpointing). For each seed
all arms begin with the same weights and learn the same token ids with the same optimiser at a constant rate, on
completion tokens alone, 16 rows a step; the order in which rows come is each arm's own. Every few steps one
function measures the loss on held-out completions, off the clock. The level is what ours reaches after `--steps`
steps with a pilot seed that is not counted; the time at which an arm passes it is interpolated between two
measurements. The order of the arms turns round with each seed. Every seed is written when it is done, and the same
command goes on behind it. Needs `pip install irlhf[bench]`.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from arms import PEERS, RATE, Bench, Setting, families, material, ours
from side_by_side import finish, options, spread
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import SchedulerType

from irlhf.models.output_logits import wanted_logits
from irlhf.training.batching import IGNORED, Collator, Encoded, alone
from irlhf.training.callbacks import TrainingPlan
from irlhf.training.settings import SHARED

ROWS_A_STEP = 16
PILOT = 1000  # a seed
SWEPT = Path(__file__).parents[1] / "docs" / "results" / "bench-finetune-mid.json"
_LONGEST = 3  # times the pilot's steps, after which an arm is given up
_WEIGHT_DECAY = 0.01  # irlhf's own

Make = Callable[[int, int, Any], Trainer]  # from a seed, a number of steps and a model


class Point(NamedTuple):
    """One measurement on the way."""

    steps: float
    seconds: float  # of training
    loss: float  # nats a held-out completion token


class Clock(TrainerCallback):
    """Measures the held-out loss every few steps, off the clock, and stops the training at a level."""

    def __init__(self, held_out: Callable[[Any], float], every: int, level: float) -> None:
        self.held_out, self.every, self.level = held_out, every, level
        self.points: list[Point] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure where the training starts from."""
        self.points.append(Point(0, 0.0, self.held_out(kwargs["model"])))
        self.going = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure every few steps."""
        if state.global_step % self.every:
            return
        seconds = self.points[-1].seconds + time.perf_counter() - self.going
        self.points.append(Point(state.global_step, seconds, self.held_out(kwargs["model"])))
        control.should_training_stop = self.points[-1].loss <= self.level
        self.going = time.perf_counter()


def main() -> None:
    """Fix the level with the pilot seed, then measure seed after seed."""
    parser = options(__doc__ or "")
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="of the pilot")
    parser.add_argument("--every", type=int, default=4, help="steps between two measurements")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--held-out", type=int, default=64, help="rows")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    asked = {name: getattr(given, name) for name in ("steps", "every", "rows", "held_out", "threads")}
    known: dict[str, Any] = json.loads(given.output.read_text()) if given.output.exists() else {"asked": asked}
    if known["asked"] != asked:
        raise SystemExit(f"{given.output} was measured with {known['asked']}; delete it or ask for the same")
    with tempfile.TemporaryDirectory() as folder:
        model, bench = material("mid", given.data, (given.rows, given.held_out), Path(folder))
        held_out = partial(loss_on, _batches(bench.held_out, bench.padding))
        made = arms(bench)
        if "level" not in known:
            clock = Clock(held_out, given.steps, 0)
            points = run(partial(made["irlhf"], PILOT, given.steps), fresh(model, PILOT), clock)
            known |= {"level": round(points[-1].loss, 3), "seeds": {}}
            finish(given.output, {**known, **about(bench)})
        for seed in range(len(known["seeds"]), given.seeds):
            ways = {}
            for name in list(made)[:: -1 if seed % 2 else 1]:
                clock = Clock(held_out, given.every, known["level"])
                points = run(partial(made[name], seed, _LONGEST * given.steps), fresh(model, seed), clock)
                ways[name] = way(points, known["level"])
            known["seeds"][str(seed)] = ways
            finish(given.output, {**known, **about(bench), **compared(list(known["seeds"].values()))})


def arms(bench: Bench) -> dict[str, Make]:
    """Return how each arm's Trainer is made; the peers at their best settings."""
    laid = families(bench.rows, SHARED, ROWS_A_STEP)

    def irlhf(seed: int, steps: int, model: Any) -> Trainer:
        made = ours(bench, laid, TrainingPlan(steps, ROWS_A_STEP, RATE, seed, layout=SHARED), model)
        made.args.lr_scheduler_type, made.args.warmup_steps = SchedulerType.CONSTANT, 0
        return made

    def peer(name: str, seed: int, steps: int, model: Any) -> Trainer:
        batch, _, grouped = best_of(name).partition(", ")
        more = {
            "lr_scheduler_type": "constant",
            "max_steps": steps,
            "gradient_accumulation_steps": ROWS_A_STEP // int(batch),
            "weight_decay": _WEIGHT_DECAY,
            "seed": seed,
        }
        return PEERS[name](bench, Setting(int(batch), bool(grouped), more=more), model)

    return {"irlhf": irlhf, **{name: partial(peer, name) for name in PEERS}}


def best_of(peer: str) -> str:
    """Return a peer's fastest setting, as benchmarks/finetune.py found it."""
    found: dict[str, float] = json.loads(SWEPT.read_text())["swept"][peer]
    return max(found, key=found.__getitem__)


def fresh(model: Any, seed: int) -> Any:
    """Return a model of the same shape with weights of its own."""
    torch.manual_seed(seed)
    return type(model)(model.config)


def run(make: Callable[[Any], Trainer], model: Any, clock: Clock) -> list[Point]:
    """Train, and return what the clock saw."""
    made = make(model)
    made.add_callback(clock)
    made.train()
    return clock.points


def _batches(rows: Sequence[Encoded], padding: int) -> list[dict[str, torch.Tensor]]:
    alike = sorted(alone(rows), key=lambda one: one.width)
    return [Collator(padding)(alike[start : start + 8]) for start in range(0, len(alike), 8)]


def loss_on(batches: Sequence[dict[str, torch.Tensor]], model: Any) -> float:
    """Return the mean loss of held-out completion tokens, in nats; the same function for all arms."""
    total, tokens = 0.0, 0
    model.eval()
    with torch.inference_mode():
        for batch in batches:
            labels = batch["labels"][:, 1:].to(model.device)
            wanted = labels != IGNORED
            given = {"input_ids": batch["input_ids"].to(model.device)}
            logits = wanted_logits(model, model.get_output_embeddings(), given, wanted)
            total += float(cross_entropy(logits.float(), labels[wanted], reduction="sum"))
            tokens += int(wanted.sum())
    model.train()
    return total / tokens


def way(points: Sequence[Point], level: float) -> dict[str, Any]:
    """Return when the level was passed, and the losses on the way. Exits where it was not passed."""
    for before, after in pairwise(points):
        if after.loss <= level:
            part = (before.loss - level) / (before.loss - after.loss)
            steps, seconds = (a + part * (b - a) for a, b in zip(before[:2], after[:2], strict=True))
            losses = {str(one.steps): round(one.loss, 3) for one in points}
            return {"seconds": round(seconds, 2), "steps": round(steps, 1), "losses": losses}
    raise SystemExit(f"a loss of {level} was not reached in {points[-1].steps} steps: {points[-1].loss:.3f}")


def about(bench: Bench) -> dict[str, Any]:
    """Return what was trained on, and how."""
    return {
        "model": "mid",
        "rows a step": ROWS_A_STEP,
        "completion tokens": bench.completion,
        "held-out completion tokens": sum(len(row.completion) for row in bench.held_out),
        "settings": {name: best_of(name) for name in PEERS},
        "trl": version("trl"),
    }


def compared(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return every arm's seconds and steps, and for each peer how many times as long it takes as ours, by seed."""
    found: dict[str, Any] = {
        name: {what: spread([seed[name][what] for seed in seeds]) for what in ("seconds", "steps")} for name in seeds[0]
    }
    for peer in PEERS:
        ratios = [seed[peer]["seconds"] / seed["irlhf"]["seconds"] for seed in seeds]
        found[f"against {peer}"] = {"ratio": spread(ratios), "ratios": [round(one, 3) for one in ratios]}
    return found


if __name__ == "__main__":
    main()
