"""From prompts alone to a policy, on a pretrained model: sample it, score, train with the contrast, evaluate.

prompts ──sample MODEL──▶ samples ──score──▶ scored ──finetune──▶ policy ──sample──▶ answers ──score, eval──▶ report.md
"""

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path

from irlhf.core import console
from irlhf.core.errors import ConfigError
from irlhf.core.example import TEST, TRAIN, VALIDATION, dumps
from irlhf.io.files import read_json, read_rows
from irlhf.models.description import describe
from irlhf.models.gguf import model_folder
from irlhf.quickstart.commands import Run, Step, clock, inside, report_usage, run_all, script, write_once
from irlhf.quickstart.settings import DECODING, PretrainedSettings
from irlhf.quickstart.summary import LEVELS, REPORT, report
from irlhf.quickstart.timing import Pace, measure_pace
from irlhf.sampling.base_model import read_base
from irlhf.sampling.settings import SampleSettings

BATCH = 8  # rows a training step
REWARDS = ("plain", "personal")

# Of every twenty prompts two are held out for the test and one for validation.
_SPLITS = {3: TEST, 9: VALIDATION, 13: TEST}
_PERIOD = 20
_INPUTS = ("rewards.yaml", "word_length.py")  # not scorers.py: the built-in quickstart has a module of that name
_RANK = 32
_RATE = 1e-3  # measured on bases of these sizes; finetune chooses for any other
_RATE_SIZES = (1e8, 1e9)  # parameters
_PASSES = 2  # of the policy for each token, with guidance
_OTHER_SECONDS = 15.0  # of a command that runs no model: starting, reading, drawing


@dataclass(frozen=True)
class Plan:
    """What is to be done: prompts with their splits, and the commands' settings."""

    model: str  # a hub id, or a folder's absolute path
    learning_rate: float  # 0 is finetune's own
    prompts: Sequence[dict[str, str]]
    settings: PretrainedSettings

    def count(self, *splits: str) -> int:
        """Return how many prompts are in these splits."""
        return sum(row["split"] in splits for row in self.prompts)

    @property
    def base_samples(self) -> int:
        """Samples of the base model."""
        return self.count(TRAIN, VALIDATION) * self.settings.samples

    @property
    def training_steps(self) -> int:
        """Training steps, if no row is left out."""
        return round(self.count(TRAIN) * self.settings.samples / BATCH * self.settings.epochs)

    @property
    def answers(self) -> int:
        """Samples of the policy: every pair of levels for each test prompt."""
        return self.count(TEST) * int(len(LEVELS) ** len(REWARDS))


def quickstart_pretrained(
    folder: str | Path, run: Run, model: str, settings: PretrainedSettings = PretrainedSettings()
) -> None:
    """Fill `folder` with a policy made of a pretrained model and prompts, and report how well it follows its targets.

    The same call resumes. Raises ConfigError where the model cannot be loaded, and where the folder holds other inputs.
    """
    home = Path(folder)
    plan = make_plan(model, settings)
    unfinished = not all((home / name).exists() for name in ("policy", "answers.jsonl"))
    pace = (
        measure_pace(plan.model, [row["prompt"] for row in plan.prompts], settings.max_tokens) if unfinished else None
    )
    steps = [step.remaining(home) for step in commands(plan, pace)]
    home.mkdir(parents=True, exist_ok=True)
    write_plan(home, plan, steps)
    _announce(home, plan, steps)
    started = time.monotonic()
    with inside(home):
        run_all(steps, run)
        report(read_json(Path("eval.json")), [row for _, row in read_rows(Path("scored-answers.jsonl"))], plan.model)
    report_usage(home, time.monotonic() - started)


def make_plan(model: str, settings: PretrainedSettings) -> Plan:
    """Return what will be done with a model. Raises ConfigError where there is no such model."""
    path = Path(model_folder(model))
    name = str(path.resolve()) if path.is_dir() else model
    read_base(name, SampleSettings())
    low, high = _RATE_SIZES
    fits = low <= describe(name).parameters < high
    return Plan(name, _RATE if fits else 0.0, embedded_prompts(settings.limit), settings)


def embedded_prompts(limit: int = 0) -> list[dict[str, str]]:
    """Return the first prompts of the package, or all, with their splits. Raises ConfigError for too few."""
    if limit and limit < _PERIOD:
        raise ConfigError(f"--limit {limit}: take at least {_PERIOD} prompts, so that each split has some")
    texts = _shipped("prompts.txt").splitlines()
    return [
        {"id": f"prompt-{n + 1:03d}", "prompt": text, "split": _SPLITS.get(n % _PERIOD, TRAIN)}
        for n, text in enumerate(texts[: limit or None])
    ]


def commands(plan: Plan, pace: Pace | None = None) -> list[Step]:
    """Return the commands in order, with the seconds that each takes at this pace."""
    pace = pace or Pace(0.0, 0.0)
    model, settings = shlex.quote(plan.model), plan.settings
    draw = f"prompts.jsonl --max-tokens {settings.max_tokens} --seed {settings.seed}"
    train = f"finetune scored.jsonl -r rewards.yaml --model {model} --objective contrast --lora {_RANK}"
    train += f" --learning-rate {plan.learning_rate:g}" if plan.learning_rate else ""
    train += f" --template reward-tenths --drop 0 --contrast whole-targets=0.7 --batch {BATCH}"
    train += f" --epochs {settings.epochs:g} --seed {settings.seed} -o policy"
    grid = " ".join(f"-t {name}={LEVELS[0]}:{LEVELS[-1]}:{LEVELS[1] - LEVELS[0]:g}" for name in REWARDS)
    training = pace.training(plan.training_steps, plan.count(VALIDATION))
    return [
        Step(f"sample {model} {draw} -n {settings.samples} -o samples.jsonl", pace.sampling(plan.base_samples)),
        Step("score samples.jsonl -r rewards.yaml -o scored.jsonl", _OTHER_SECONDS),
        Step(train, training),
        Step(f"sample policy {draw} {grid} {DECODING} -o answers.jsonl", _PASSES * pace.sampling(plan.answers)),
        Step("score answers.jsonl -r rewards.yaml -o scored-answers.jsonl", _OTHER_SECONDS),
        Step("eval scored-answers.jsonl -o eval.json", _OTHER_SECONDS),
        Step("plot eval.json policy scored.jsonl scored-answers.jsonl -o plots --report report.html", _OTHER_SECONDS),
    ]


def write_plan(home: Path, plan: Plan, steps: Sequence[Step]) -> None:
    """Write prompts, rewards and run.sh. Raises ConfigError rather than replace a file with another text."""
    rows = b"".join(map(dumps, plan.prompts)).decode()
    texts = {"prompts.jsonl": rows, "run.sh": script(steps)} | {name: _shipped(name) for name in _INPUTS}
    for name, text in texts.items():
        write_once(home / name, text)
    (home / "run.sh").chmod(0o755)


def _shipped(name: str) -> str:
    return package_files("irlhf.quickstart").joinpath("files", "pretrained", name).read_text(encoding="utf-8")


def _announce(home: Path, plan: Plan, steps: Sequence[Step]) -> None:
    """Say what will be done, how long it takes and what it leaves."""
    settings, seconds = plan.settings, [step.seconds for step in steps]
    console.note(
        f"Prompts alone are enough: {plan.model} becomes a policy that follows {' and '.join(REWARDS)}.\n"
        f"  1. sample the base model: {plan.base_samples:,} samples of at most {settings.max_tokens} tokens, to"
        f" {plan.count(TRAIN, VALIDATION):,} prompts{_about(seconds[0])}\n"
        f"  2. score them by two rules, and train on them: {plan.training_steps:,} steps of {BATCH}"
        f" rows{_about(sum(seconds[1:3]))}\n"
        f"  3. sample the policy at low, medium and high targets: {plan.answers:,} answers to {plan.count(TEST):,}"
        f" prompts that it never saw, evaluated and drawn{_about(sum(seconds[3:]))}\n"
        f"{_total(sum(seconds), seconds[0] + seconds[2] > 0)}Interrupted, the same command resumes."
        f" The folder {home} gets {REPORT}, report.html and the policy."
    )


def _about(seconds: float) -> str:
    return f", about {clock(seconds)} min" if seconds else ""


def _total(seconds: float, measured: bool) -> str:
    return (
        f"About {max(1, round(seconds / 60))} minutes in all, by a batch that was timed on this machine. "
        if measured
        else ""
    )
