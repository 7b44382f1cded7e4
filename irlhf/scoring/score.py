"""Give every completion its rewards."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example, from_json, unique
from irlhf.core.hashing import fingerprint, parse_shard
from irlhf.executors.base import LOCAL, Engine, Work, fixed_pools, run_pools
from irlhf.io.files import STREAM, read_each, read_rows
from irlhf.io.jsonl import Broken
from irlhf.io.resumable import PARTIAL, ResumableWriter, RunManifest, beside, resumable_output
from irlhf.policy.rewards_file import REACH, Reward, read_rewards
from irlhf.scoring.cache import NAME, Cache
from irlhf.scoring.runner import AlreadyWritten, Answer, PoolRow, ScorerGroup, scorer_groups
from irlhf.scoring.scorers.base import Failure
from irlhf.scoring.settings import ScoreSettings

_POOL = 256  # rows that a scorer sees at once; a kill costs at most their scoring
_WAITED = 1024  # where answers are waited for, which are kept one by one: few pools, and few ends of pools to wait for


def score(
    examples: str | Path,
    rewards: str | Path,
    output: str | Path,
    settings: ScoreSettings = ScoreSettings(),
    engine: Engine = LOCAL,
) -> dict[str, Any]:
    """Write the same rows with `rewards` (or `gold`) filled, and return what was done.

    Rewards that a row has already are kept where this rewards.yaml does not name them. A reward that
    cannot be had stops the run with the scorer's reason, or sets its row aside (`on_bad_row="skip"`).
    Raises ConfigError, DataError and BackendError.
    """
    if not rewards:
        raise ConfigError("name the rewards.yaml that says who is asked with -r (only --keep needs none)")
    source, out = Path(examples), Path(output)
    wanted = _wanted(Path(rewards), settings)
    groups = scorer_groups(wanted, Path(rewards).parent.resolve())
    manifest = _manifest(source, wanted, groups, settings)
    with resumable_output(out, manifest) as book:
        if not book.finished:
            # A bad row is found before any scorer is asked, not after an hour of asking.
            total = (
                None
                if source == STREAM
                else sum(map(len, fixed_pools(_read(source, settings, None), _pool(groups), book.done)))
            )
            work = Work("irlhf.scoring.runner:ScorerRunner", (groups, Cache(_cache(out, settings))))
            survey = _survey(book)
            with (
                console.progress("scoring", total) as advance,
                closing(run_pools(_pools(source, settings, groups, book), work, engine, advance)) as pools,
            ):
                for example, answer in (pair for pool in pools for pair in zip(*pool, strict=True)):
                    if isinstance(example, Example) and (row := _settle(example, answer, settings, book)):
                        survey.add(row)
    if book.finished:
        Cache(_cache(out, settings)).settle()
    if book.finished or settings.gold:
        return book.summary()
    report = survey.report(wanted)
    from irlhf.scoring.diagnostics import tell

    tell(report)
    return {**book.summary(), "steerable": report}


def _manifest(
    source: Path, wanted: Mapping[str, Reward], groups: Sequence[ScorerGroup], settings: ScoreSettings
) -> RunManifest:
    """Return what the run makes. Where replies are kept, and how a server is reached, changes no row."""
    specs = {name: reward.model_dump(exclude_defaults=True, exclude=REACH) for name, reward in wanted.items()}
    known = {name: group.scorer.traits.identity for group in groups for name in group.rewards}
    scorers = {name: hashlib.sha256(identity.encode()).hexdigest() for name, identity in known.items() if identity}
    made = {name: value for name, value in asdict(settings).items() if name != "cache"}
    afresh = "what was said before is kept: only what has changed is asked" if scorers else ""
    return RunManifest("score", {"examples": source}, {**made, "rewards": specs, "scorers": scorers}, afresh)


def _cache(out: Path, settings: ScoreSettings) -> Path:
    return Path(settings.cache) if settings.cache else (Path() if out == STREAM else out.parent) / NAME


def _pool(groups: Sequence[ScorerGroup]) -> int:
    return _WAITED if any(group.scorer.traits.waits for group in groups) else _POOL


def _pools(
    source: Path, settings: ScoreSettings, groups: Sequence[ScorerGroup], book: ResumableWriter
) -> Iterator[list[PoolRow]]:
    """Yield the pools that miss a row; in one of them the rows that are written already are marked."""
    for pool in fixed_pools(_read(source, settings, book), _pool(groups), book.done):
        yield [AlreadyWritten(example) if fingerprint(example.id) in book.done else example for example in pool]


def _wanted(path: Path, settings: ScoreSettings) -> Mapping[str, Reward]:
    read = read_rewards(path)
    if settings.gold and not read.gold:
        raise ConfigError(f"{path}: no `gold:` in it, so --gold has nobody to ask")
    return read.gold if settings.gold else read.rewards


def _read(source: Path, settings: ScoreSettings, book: ResumableWriter | None) -> Iterator[Example]:
    """Yield the shard's examples. With `on_bad_row="skip"` a row that cannot be read joins the rejected ones."""
    shard = parse_shard(settings.shard)

    def rows() -> Iterator[tuple[Any, Example]]:
        for where, row in islice(read_each(source), settings.limit or None):
            given = row.given if isinstance(row, Broken) else row
            try:
                if isinstance(row, Broken):
                    raise row.error
                yield where, from_json(row, where)
            except DataError as error:
                if settings.on_bad_row == "stop":
                    raise
                if book is not None and shard.holds(f"{given}"):  # it has no prompt, and still one shard alone
                    book.reject(where, str(error).removeprefix(f"{where}: "), given)

    return (example for example in unique(rows()) if shard.holds(example.cluster))


def _survey(book: ResumableWriter) -> Any:
    """Return what looks at the rewards as they pass, with those that an interrupted run wrote."""
    from irlhf.scoring.diagnostics import RewardStatistics

    survey = RewardStatistics()
    if book.done:
        for where, row in read_rows(beside(book.output, PARTIAL)):
            survey.add(from_json(row, where))
    return survey


def _settle(
    example: Example, answer: Answer | Failure, settings: ScoreSettings, book: ResumableWriter
) -> Example | None:
    """Write the row with its rewards and return it, or set it aside."""
    if isinstance(answer, Failure):
        if settings.on_bad_row == "stop":
            raise answer.error(f"{example.id}: {answer.reason}; --on-bad-row skip sets such rows aside")
        book.reject(example.id, answer.reason, example.to_json())
        return None
    if settings.gold:
        row = replace(example, gold={**example.gold, **answer})
    else:
        row = replace(example, rewards={**example.rewards, **answer})
    book.write(row)
    return row
