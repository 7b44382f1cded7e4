"""The command line that trains a round, here or at a host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from irlhf.errors import ConfigError
from irlhf.files import read_json
from irlhf.finetune import FinetuneSettings
from irlhf.hosted import PREFIX
from irlhf.policy import read_policy

if TYPE_CHECKING:
    from irlhf.online import Loop

_SLOWER = 1 / 3  # of the rate that the policy was trained with: it knows most of it already
_MILLION = 1e6
_FLAGS = ("batch", "context", "drop", "drop_all", "accumulate", "lora", "report_to", "layout")


def training_line(loop: Loop, policy: Path, folder: Path, how: tuple[int, float]) -> list[str]:
    """Return `finetune` for the round's number and epochs: from the policy of before, its scales kept."""
    number, epochs = how
    line = ["finetune", folder / "train.jsonl", "--like", policy, "-r", loop.rewards, "-o", folder / "policy"]
    line += ["--seed", (loop.seed + number) % 2**32]
    usual = FinetuneSettings()
    for name in _FLAGS:
        if getattr(loop.settings.training, name) != getattr(usual, name):
            line += [f"--{name.replace('_', '-')}", getattr(loop.settings.training, name)]
    line += ["--no-merge"] * (not loop.settings.training.merge)
    there = read_policy(policy).hosted
    if there is not None:
        return [*map(str, line), *_at_host(loop, policy, folder)]
    rate = loop.settings.training.learning_rate or _usual_rate(loop) * _SLOWER
    return [*map(str, line), "--model", str(policy), "--epochs", f"{epochs:g}", "--learning-rate", f"{rate:.3g}"]


def _usual_rate(loop: Loop) -> float:
    plan = loop.card.training.get("plan", {})
    if "rate" not in plan:
        raise ConfigError(f"{loop.start}: its card does not say how fast it learnt; name a --learning-rate")
    return float(plan["rate"])


def _at_host(loop: Loop, policy: Path, folder: Path) -> list[str]:
    """Return the flags of a job that goes on from what the host trained before."""
    there = read_policy(policy).hosted
    if there is None or not there.model:
        raise ConfigError(f"{policy}: it has no name to be asked by yet; deploy it, then tell with --served-name")
    line = ["--model", PREFIX + (there.trained or there.model), "--host", there.host, "--base-url", there.base_url]
    line += ["--epochs", str(max(1, round(loop.settings.training.epochs or 1)))]
    given = loop.settings.hosted
    for one in given.hyperparameters:
        line += ["--hyperparameter", one]
    for flag, value in (("--extra-body", given.extra_body), ("--api-key-env", given.api_key_env)):
        line += [flag, value] if value else []
    line += ["--price-per-mtok", f"{given.price:g}"] if given.price else []
    line += ["--max-spend", f"{_left(loop, folder):.6g}"] if given.max_spend else []
    return [*line, *(["--yes"] if given.yes else [])]


def _left(loop: Loop, folder: Path) -> float:
    """Return what the jobs before leave of --max-spend, those of all controls. Raises ConfigError for nothing."""
    cards = {*loop.out.glob("round-*/policy/policy.json"), *loop.out.glob("*/round-*/policy/policy.json")}
    others = cards - {folder / "policy" / "policy.json"}
    spent = (
        loop.settings.hosted.price
        / _MILLION
        * sum(float(read_json(card)["training"]["estimated tokens"]) for card in others)
    )
    left: float = loop.settings.hosted.max_spend - spent
    if left <= 0:
        told = f"about {spent:,.2f} is spent, so nothing is left of --max-spend {loop.settings.hosted.max_spend:,.2f}"
        raise ConfigError(f"{told}; allow more to go on")
    return left
