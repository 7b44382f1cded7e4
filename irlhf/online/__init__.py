"""Rounds: ask the policy, score what it says, choose, train on; every round is files that the six commands make."""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from irlhf import console
from irlhf.errors import ConfigError, DataError
from irlhf.files import read_rows, write_json
from irlhf.finetune import FinetuneSettings
from irlhf.finetune.hosting import NOWHERE, HostedSettings, refuse_hosted
from irlhf.journal import RunCard, beside, is_finished, lock
from irlhf.online.arms import LOOP, Arm, arms_of, check_keep
from irlhf.online.asking import ASKS, asking
from irlhf.online.mix import Offline, mixed, write_rows
from irlhf.online.training import training_line
from irlhf.online.watch import Watch, drawn, watch
from irlhf.policy import Policy, read_policy
from irlhf.records import TRAIN, VALIDATION
from irlhf.registry import did_you_mean, resolve
from irlhf.rewards import Rewards, read_rewards

ROUNDS = "rounds.json"  # all that was watched
POLICY = "policy"  # a link to the folder of the policy to take
VERSION = 1  # of rounds.json's shape

_USUAL = FinetuneSettings()

Run = Callable[[Sequence[str]], None]  # runs one irlhf command line


@dataclass(frozen=True)
class OnlineSettings:
    """How a policy goes on learning from its own samples.

    Each of `rounds` asks `prompts` prompts of the training split for rewards, `samples` times each; `ask` says for
    which: `uniform` anywhere, `data` what training rows have, `high` what the better of them have, `weighted` the mix
    that rewards.yaml weighs, `past` more than the last round brought. `keep` are rules of `score --keep` that choose
    what is trained on. `replay` is the share of offline rows in what is trained on, in [0, 1). `watch` prompts of the
    validation split are asked the same after every round. With `controls` they run beside what they are held against;
    `fresh` are scored rows that no policy has seen, as many scorer calls for the offline control. `training` is how
    each round trains, at a host with `hosted`: epochs are those of a round that keeps all of its samples (0 is 1).
    """

    rounds: int
    prompts: int = 128
    samples: int = 8
    ask: str = "weighted"
    keep: str = "distinct"
    replay: float = 0.5
    max_tokens: int = 128
    watch: int = 64
    controls: bool = False
    fresh: str = ""
    training: FinetuneSettings = _USUAL
    hosted: HostedSettings = NOWHERE

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides what the rounds are."""
        return {name: value for name, value in asdict(self).items() if name != "hosted"}


@dataclass(frozen=True)
class Loop:
    """All that stays the same from round to round."""

    out: Path
    scored: Path
    rewards: str
    named: Rewards
    start: Path  # the folder of the policy that the rounds go on from
    card: Policy
    settings: OnlineSettings
    offline: Offline
    run: Run

    @property
    def seed(self) -> int:
        """The seed of all that is random."""
        return self.settings.training.seed

    def command(self, *arguments: object) -> None:
        """Run one of the six commands; finished ones do nothing."""
        with console.hushed():
            self.run([*map(str, arguments), "-q"])


def online(scored: str | Path, output: str | Path, model: str, run: Run, settings: OnlineSettings) -> dict[str, Any]:
    """Train on from the policy in the folder `model`, round after round, and return what was done.

    `<output>/round-1` and so on hold what the commands wrote, `rounds.json` what was watched, `policy` is a link to
    the policy to take: the last one, or the one before gold fell while the rewards rose. The same call goes on where
    it stopped. Raises ConfigError and DataError.
    """
    out = Path(output)
    loop = _loop((Path(scored), out, model), run, settings)
    inputs = {"examples": loop.scored, "model": loop.start, "rewards": Path(loop.rewards)}
    inputs |= {"fresh": Path(settings.fresh)} if settings.fresh else {}
    made = RunCard("finetune --rounds", inputs, settings.deciding).to_json()
    out.mkdir(parents=True, exist_ok=True)
    with lock(out / ROUNDS):
        if is_finished(out / ROUNDS, made):
            return {"output": str(out), "finished": True}
        write_json(beside(out / ROUNDS, ".run.json"), made)
        write_rows(out / "watch.jsonl", _watched_prompts(loop))
        before = watch(loop, loop.start, out / "round-0")
        first, *controls = arms_of(settings)
        with console.progress("rounds", (1 + len(controls)) * settings.rounds) as advance:
            found = [_arm(loop, first, (before, settings.rounds), advance)]
            rounds = len(found[0]["rounds"]) - 1
            found += [_arm(loop, arm, (before, rounds), advance) for arm in controls]
        rules = {"names": list(loop.card.names), "settings": settings.deciding}
        write_json(out / ROUNDS, {"version": VERSION, **rules, "arms": found})
    return {"output": str(out), "finished": False, "rounds": rounds, "policy": os.readlink(out / POLICY)}


def _loop(places: tuple[Path, Path, str], run: Run, settings: OnlineSettings) -> Loop:
    """Check what was asked for before anything is done. Raises ConfigError and DataError."""
    scored, out, model = places
    _check(model, settings)
    start = Path(model)
    card = read_policy(start)
    if card.blind:
        raise ConfigError(f"{model}: a policy whose prompts hold no reward cannot be asked for one; train another")
    if card.hosted is None:
        refuse_hosted(settings.hosted)
    rewards = settings.training.rewards
    named = read_rewards(Path(rewards))
    offline = Offline.read(scored, settings, len if card.hosted else _counter(model))
    return Loop(out, scored, rewards, named, start, card, settings, offline, run)


def _counter(model: str) -> Callable[[str], int]:
    """Return what counts tokens. The tokenizer is loaded when it is first asked, for finished rounds ask nothing."""
    loaded: Callable[[], Callable[[str], int]] = cache(lambda: resolve("irlhf.engines.local:counter")(model))

    def count(text: str) -> int:
        return loaded()(text)

    return count


def _check(model: str, settings: OnlineSettings) -> None:
    training = settings.training
    if not training.rewards:
        raise ConfigError("name the rewards.yaml whose scorers are asked in every round, with -r")
    if not (Path(model) / "policy.json").is_file():
        made = "irlhf finetune SCORED -r rewards.yaml -o policy"
        raise ConfigError(f"--model {model}: rounds go on from a policy; make one first ({made}), then name its folder")
    for flag, value in (
        ("--template", training.template),
        ("--baseline", training.baseline),
        ("--like", training.like),
    ):
        if value:
            raise ConfigError(f"{flag} {value}: rounds keep what the policy was trained with; leave it out")
    if training.limit:
        raise ConfigError("--limit: rounds take --prompts of the rows; leave it out")
    if settings.ask not in ASKS:
        raise ConfigError(f"unknown --ask '{settings.ask}'{did_you_mean(settings.ask, ASKS)}")
    if not 0 <= settings.replay < 1:
        raise ConfigError(f"--replay {settings.replay}: write a share from 0 to below 1")
    check_keep(settings.keep)


def _watched_prompts(loop: Loop) -> list[dict[str, Any]]:
    prompts = _prompts(loop.scored, VALIDATION)
    if not prompts:
        raise DataError(f"{loop.scored}: no prompt of the {VALIDATION} split, which the rounds are watched by")
    return prompts[: loop.settings.watch]


def _prompts(scored: Path, split: str) -> list[dict[str, Any]]:
    """Return the different prompts of a split as rows, in the order of the file."""
    found: dict[str, dict[str, Any]] = {}
    for _, row in read_rows(scored):
        if row.get("split", TRAIN) == split:
            name = row.get("group") or row["id"]
            found.setdefault(name, {"id": name, "prompt": row["prompt"], "group": name, "split": split})
    return list(found.values())


def _arm(loop: Loop, arm: Arm, begin: tuple[Watch, int], advance: Callable[[int], None]) -> dict[str, Any]:
    """Run so many rounds of one arm from the first watch on, and return what was watched.

    The loop itself stops where gold falls while the rewards rise; its controls go as far as it went.
    """
    home = loop.out / arm.folder
    before, rounds = begin
    policy, best = loop.start, before
    rows = [{"round": 0, "policy": str(loop.start), **before.figures}]
    for number in range(1, rounds + 1):
        folder = home / f"round-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        done = _round(loop, arm, (policy, folder), number)
        policy = folder / POLICY if arm.trains else policy
        now = watch(loop, policy, folder) if arm.trains else before
        fallen = now.fallen(best) if arm.name == LOOP else ""
        row = {"round": number, "policy": str(policy), **done, **now.figures} | (
            {"gold fell": fallen} if fallen else {}
        )
        write_json(folder / "round.json", row)
        rows.append(row)
        advance(1)
        _tell(loop, arm, number, rows)
        if fallen:
            console.warn(
                f"round {number}: gold fell {fallen} while the rewards rose, so it ends here; take {best.policy}"
            )
            break
        best = now if now.gold >= best.gold else best
    if arm.name == LOOP:
        _link(home / POLICY, best.policy if "gold fell" in rows[-1] else policy)
    return {**asdict(arm), "rounds": rows}


def _round(loop: Loop, arm: Arm, places: tuple[Path, Path], number: int) -> dict[str, Any]:
    """Ask, score, choose and train on; return what was drawn and learnt."""
    policy, folder = places
    first = loop.out / f"round-{number}"  # of the loop itself: all arms ask the same prompts for the same
    if arm.name == LOOP:
        write_rows(first / "prompts.jsonl", _asked_prompts(loop, number))
    if arm.draws:
        asks = asking(loop, first, number)
        seed = (loop.seed + number) % 2**32
        far = ["--reference", loop.start] if "kl=" in arm.keep else []
        drawing = ["-n", loop.settings.samples, "--max-tokens", loop.settings.max_tokens, "--split", TRAIN]
        samples, scored = folder / "samples.jsonl", folder / "scored.jsonl"
        loop.command("sample", policy, first / "prompts.jsonl", *asks, *drawing, *far, "--seed", seed, "-o", samples)
        loop.command("score", samples, "-r", loop.rewards, "-o", scored, "--on-bad-row", "skip")
        keep = arm.rules(first)
        loop.command("score", scored, "--keep", keep, "--policy", policy, "-o", folder / "kept.jsonl")
        done = drawn(loop, folder, asks)
    else:
        write_rows(folder / "kept.jsonl", loop.offline.fresh_rows(number))
        done = {"drawn": {"kept": len(loop.offline.fresh_rows(number))}}
    if not arm.trains:
        return done
    kept = [row for _, row in read_rows(folder / "kept.jsonl")] if (folder / "kept.jsonl").stat().st_size else []
    rows, epochs = mixed(kept, loop.offline, loop.settings, number, loop.settings.training.epochs)
    write_rows(folder / "train.jsonl", rows)
    loop.command(*training_line(loop, policy, folder, (number, epochs)))
    learnt = read_policy(folder / POLICY).training
    told = {name: learnt[name] for name in ("rows", "steps", "completion tokens", "estimated tokens") if name in learnt}
    return {**done, "training": {**told, "epochs": epochs, "from samples": len(kept)}}


def _asked_prompts(loop: Loop, number: int) -> list[dict[str, Any]]:
    """Return the prompts of a round: all of the training split are asked before any comes again."""
    known = _prompts(loop.scored, TRAIN)
    wanted, asked = loop.settings.prompts, []
    start = (number - 1) * wanted
    for place in range(start, start + wanted):
        lap, offset = divmod(place, len(known))
        order = random.Random(f"{loop.seed}/prompts/{lap}").sample(range(len(known)), len(known))
        asked.append(known[order[offset]])
    return list({row["id"]: row for row in asked}.values())


def _link(path: Path, folder: Path) -> None:
    """Let `path` lead to a policy's folder."""
    target = os.path.relpath(folder, path.parent)
    if path.is_symlink() and os.readlink(path) == target:
        return
    temporary = path.with_name(f".{path.name}.link")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def _tell(loop: Loop, arm: Arm, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
    def told(name: str) -> str:
        values = [row[name] for row in (rows[-2], rows[-1])]
        known = [one["value"] if isinstance(one, Mapping) else None for one in values]
        return f"{name} {known[0]:.2f} → {known[1]:.2f}" if None not in known else ""

    said = ", ".join(filter(None, map(told, ("reward", "gold", "entropy"))))
    console.note(f"{arm.name}, round {number} of {loop.settings.rounds}: {said}")
