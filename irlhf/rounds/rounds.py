"""Run rounds of sampling, scoring, selection and training; each round consists of the files of these commands."""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import DataError
from irlhf.core.example import TRAIN, VALIDATION
from irlhf.io.files import TEMPORARY, read_rows, sweep, write_json
from irlhf.io.resumable import RunManifest, is_finished, lock, outcome
from irlhf.policy.policy_file import read_policy
from irlhf.policy.rewards_file import read_rewards
from irlhf.policy.rounds_file import write_rounds
from irlhf.rounds.checks import check_folder, check_ours, check_policy, check_rewards, check_settings
from irlhf.rounds.monitor import drawn, watch
from irlhf.rounds.replay import Offline, mixed, prompts_of, write_rows
from irlhf.rounds.round_targets import round_targets
from irlhf.rounds.settings import RoundsSettings
from irlhf.rounds.training import left, rehearse, spent, train_round
from irlhf.rounds.types import Loop
from irlhf.sampling.settings import SampleSettings

ROUNDS = "rounds.json"  # all measurements
POLICY = "policy"  # link to the folder of the policy to use


def run_rounds(scored: str | Path, output: str | Path, model: str, settings: RoundsSettings) -> dict[str, Any]:
    """Train the policy in the folder `model` in rounds, and return a summary.

    `<output>/round-N` holds the files of the commands, `rounds.json` the measurements. `policy` is a link to the policy
    to use: the last one, or the one before the gold reward fell while the rewards rose. An interrupted run resumes.
    Raises ConfigError and DataError.
    """
    out = Path(output)
    check_settings(model, settings)
    inputs = {"examples": Path(scored), "model": Path(model), "rewards": Path(settings.training.rewards)}
    check_folder(out, inputs)
    manifest = RunManifest("rounds", inputs, settings.deciding).with_digests()
    check_ours(out / ROUNDS)
    if is_finished(out / ROUNDS, manifest, parts=out):
        with lock(out / ROUNDS):  # removes the lock file of a killed run
            return outcome(out, already=True)
    loop, watched = _loop(Path(scored), out, model, settings)
    out.mkdir(exist_ok=True)
    with lock(out / ROUNDS):
        _sweep(loop)
        manifest.write(out / ROUNDS)
        write_rows(out / "watch.jsonl", watched)
        with console.progress("rounds", settings.rounds) as advance:
            rows = _rounds(loop, advance)
        write_rounds(out / ROUNDS, loop.policy.names, settings.deciding, rows)
    return {**outcome(out), "rounds": len(rows) - 1, "policy": os.readlink(out / POLICY)}


def _loop(scored: Path, out: Path, model: str, settings: RoundsSettings) -> tuple[Loop, list[dict[str, Any]]]:
    """Check the inputs, and return the loop and the fixed validation prompts.

    Raises ConfigError and DataError.
    """
    start, rewards = Path(model), settings.training.rewards
    policy, named = read_policy(start), read_rewards(Path(rewards))
    check_policy(model, policy, settings)
    check_rewards(named, policy, settings)
    offline = Offline.read(scored, settings, tuple(named.rewards))
    watched = prompts_of(scored, VALIDATION)[: settings.watch]
    if not watched:
        raise DataError(f"{scored}: no prompts of the {VALIDATION} split, which every round is measured on")
    if policy.hosted is None:
        offline = replace(offline, length=_counter(model))
    loop = Loop(out, scored, rewards, named, start, policy, settings, offline)
    if policy.hosted:
        rehearse(loop)
    return loop, watched


def _sweep(loop: Loop) -> None:
    """Remove temporary files of a killed run, including those of the model card of the first policy."""
    sweep(loop.out)
    for stale in loop.start.glob(f"{TEMPORARY}README.md.*"):
        stale.unlink(missing_ok=True)


def _counter(model: str) -> Callable[[str], int]:
    """Return a function that counts tokens. It loads the tokenizer on first use, which finished rounds do not need."""

    @cache
    def loaded() -> Callable[[str], int]:
        from irlhf.models.loading import counter

        return counter(model)

    def count(text: str) -> int:
        return loaded()(text)

    return count


def _rounds(loop: Loop, advance: Callable[[int], None]) -> list[dict[str, Any]]:
    """Run all rounds and return their measurements, from round 0, the first policy.

    They stop early if the gold reward falls while the rewards rise.
    """
    policy, best = loop.start, watch(loop, loop.start, loop.out / "round-0")
    rows: list[dict[str, Any]] = [{"round": 0, "policy": str(loop.start), **best.figures}]
    for number in range(1, loop.settings.rounds + 1):
        folder = loop.out / f"round-{number}"
        folder.mkdir(exist_ok=True)
        done = _round(loop, policy, folder, number)
        policy = folder / POLICY
        now = watch(loop, policy, folder)
        fallen = now.fallen(best)
        row = {"round": number, "policy": str(policy), **done, **now.figures}
        rows.append(row | {"gold fell": fallen} if fallen else row)
        write_json(folder / "round.json", rows[-1])
        advance(1)
        _report(loop, rows)
        if fallen:
            stopped = f"the gold reward fell {fallen} while the rewards rose; stopped, use {best.policy}"
            console.warn(f"round {number}: {stopped}")
            policy = best.policy
            break
        best = now if now.gold >= best.gold else best
    _link(loop.out / POLICY, policy)
    return rows


def _round(loop: Loop, policy: Path, folder: Path, number: int) -> dict[str, Any]:
    """Sample, score, select and train; return the counts of the round."""
    left(loop, folder / POLICY)  # raises before paying for samples that cannot be trained on
    prompts, samples, scored, selected = (folder / f"{name}.jsonl" for name in ("prompts", "samples", "scored", "kept"))
    write_rows(prompts, _round_prompts(loop, number))
    requested = round_targets(loop, folder, number)
    seed, reference = (loop.seed + number) % 2**32, str(loop.start) if "kl=" in loop.settings.keep else ""
    drawing = SampleSettings(n=loop.settings.samples, split=TRAIN, seed=seed, reference=reference)
    loop.sample(policy, prompts, samples, requested, drawing)
    unscored = loop.score(samples, scored)
    loop.select(scored, selected, policy)
    done = drawn(loop, folder, requested) | ({"without reward": unscored} if unscored else {})
    kept = [row for _, row in read_rows(selected)] if selected.stat().st_size else []
    rows, epochs = mixed(kept, loop.offline, loop.settings, number, loop.settings.training.epochs)
    write_rows(folder / "train.jsonl", rows)
    train_round(loop, policy, folder, number, epochs)
    learnt = read_policy(folder / POLICY).training
    counts = {
        name: learnt[name] for name in ("rows", "steps", "completion tokens", "estimated tokens") if name in learnt
    }
    return {**done, "training": {**counts, "epochs": epochs, "from samples": len(kept)}}


def _round_prompts(loop: Loop, number: int) -> list[dict[str, Any]]:
    """Return the prompts of a round; all training prompts are used once before any is repeated."""
    known = prompts_of(loop.scored, TRAIN)
    per_round, prompts = loop.settings.prompts, []
    start = (number - 1) * per_round
    for index in range(start, start + per_round):
        pass_number, offset = divmod(index, len(known))
        order = random.Random(f"{loop.seed}/prompts/{pass_number}").sample(range(len(known)), len(known))
        prompts.append(known[order[offset]])
    return list({row["id"]: row for row in prompts}.values())


def _link(path: Path, folder: Path) -> None:
    """Make `path` a link to a policy folder, atomically."""
    target = os.path.relpath(folder, path.parent)
    if path.is_symlink() and os.readlink(path) == target:
        return
    temporary = path.with_name(f".{path.name}.link")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def _report(loop: Loop, rows: Sequence[Mapping[str, Any]]) -> None:
    def change(name: str) -> str:
        values = [row[name] for row in (rows[-2], rows[-1])]
        known = [figure["value"] if isinstance(figure, Mapping) else None for figure in values]
        return f"{name} {known[0]:.2f} → {known[1]:.2f}" if None not in known else ""

    changes = ", ".join(filter(None, map(change, ("reward", "gold", "entropy"))))
    paid = f"; about {spent(loop):,.2f} spent on jobs" if loop.policy.hosted and loop.settings.hosted.price else ""
    console.note(f"round {rows[-1]['round']} of {loop.settings.rounds}: {changes}{paid}")
