"""Score completions: write their rewards into the rows."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example, as_text, from_json, unique
from irlhf.core.hashing import fingerprint, parse_shard
from irlhf.executors.base import LOCAL, Engine, Work, fixed_pools, run_pools
from irlhf.io.files import STREAM, read_each, read_rows
from irlhf.io.resumable import PARTIAL, ResumableWriter, RunManifest, beside, read_examples, resumable_output
from irlhf.policy.recorded_rewards import read_recorded
from irlhf.policy.rewards_file import Reward, read_rewards
from irlhf.scoring.cache import NAME, Cache
from irlhf.scoring.pooled_scorers import pooled
from irlhf.scoring.runner import AlreadyWritten, Answer, PoolRow, ScorerGroup, scorer_groups, scorer_identities
from irlhf.scoring.scorers.base import Failure
from irlhf.scoring.scorers.column import NOT_IN_SAMPLES, Column
from irlhf.scoring.settings import ScoreSettings

_TEXTLESS = "rows have a tool call or reasoning and no text"  # a count
_POOL = 256  # rows per pool; a killed run repeats at most one pool
_SKIP = "; use --on-bad-row skip to reject such rows"
_WAITED = 1024  # rows per pool for servers, whose replies are cached one by one


def score(
    examples: str | Path,
    rewards: str | Path,
    output: str | Path,
    settings: ScoreSettings = ScoreSettings(),
    engine: Engine = LOCAL,
) -> dict[str, Any]:
    """Write the rows with their `rewards` (or `gold`), and return the counts.

    Existing rewards of a row that this rewards.yaml does not name are kept. If a scorer fails on a row, the run stops
    with its reason or, with `on_bad_row="skip"`, the row is rejected. Raises ConfigError, DataError, BackendError and
    OutputError.
    """
    if not rewards:
        raise ConfigError("pass a rewards.yaml with -r (only --keep works without one)")
    source, out, file = (Path(path).expanduser() for path in (examples, output, rewards))
    named = read_rewards(file)
    if settings.gold and not named.gold:
        raise ConfigError(f"{file}: no `gold:` in this file, which --gold needs")
    rewards_by_name = named.gold if settings.gold else named.rewards
    groups = scorer_groups(rewards_by_name, file.parent.resolve())
    recorded = read_recorded(source)
    if not settings.gold:
        recorded = recorded.with_later(named, scorer_identities(rewards_by_name, groups))
    manifest = replace(_manifest(source, rewards_by_name, groups, settings), recorded=recorded.to_json())
    cache = _cache(out, settings)
    with resumable_output(out, manifest) as writer:
        if not writer.finished:
            total = None
            if source != STREAM:  # read all rows first, to find invalid ones before any scorer runs
                checked = fixed_pools(_checked(source, settings, groups), _pool(groups), writer.done)
                total = sum(map(len, checked))
            work = Work("irlhf.scoring.runner:ScorerRunner", (groups, cache))
            statistics, notes = _reward_statistics(writer), Counter[str]()
            with (
                console.progress("scoring", total) as advance,
                closing(run_pools(_pools(source, settings, groups, writer), work, engine, advance)) as pools,
            ):
                for example, answer in (pair for pool in pools for pair in zip(*pool, strict=True)):
                    if isinstance(example, Example) and (
                        row := _write(example, answer, rewards_by_name, settings, writer)
                    ):
                        statistics.add(row)
                        notes["samples"] += bool(row.policy)
                        if not isinstance(row.completion, str) and not as_text(row.completion).strip():
                            notes[_TEXTLESS] += 1
            notes += _report_notes(work.counts, notes[_TEXTLESS])
    if writer.finished:
        cache.settle()
    if writer.finished or settings.gold:
        return writer.summary()
    report = statistics.report(rewards_by_name)
    from irlhf.scoring.diagnostics import tell

    tell(report)
    return {**writer.summary(), **notes, "steerable": report}


def _report_notes(counts: Counter[str], textless: int) -> Counter[str]:
    """Warn about inputs that a scorer did not read as they are, and return their counts.

    Rows that an interrupted run wrote are not counted.
    """
    if textless:
        console.warn(f"{textless:,} {_TEXTLESS}, which a scorer reads as an empty completion")
    for what, number in counts.items():
        console.warn(f"{number:,} {what}")
    return counts


def _manifest(
    source: Path, rewards_by_name: Mapping[str, Reward], groups: Sequence[ScorerGroup], settings: ScoreSettings
) -> RunManifest:
    """Return the run's manifest, without the cache file and connection settings, which do not affect the rows."""
    specs = {name: reward.numbers for name, reward in rewards_by_name.items()}
    known = {name: group.scorer.traits.identity for group in groups for name in group.rewards}
    scorers = {name: hashlib.sha256(identity.encode()).hexdigest() for name, identity in known.items() if identity}
    kept = {name: value for name, value in asdict(settings).items() if name != "cache"}
    afresh = "cached replies are reused; only changes are scored" if scorers else ""
    return RunManifest("score", {"examples": source}, {**kept, "rewards": specs, "scorers": scorers}, afresh)


def _cache(out: Path, settings: ScoreSettings) -> Cache:
    folder = Path() if out == STREAM else out.parent
    return Cache(Path(settings.cache) if settings.cache else folder / NAME)


def _pool(groups: Sequence[ScorerGroup]) -> int:
    return _WAITED if any(group.scorer.traits.waits for group in groups) else _POOL


def _pools(
    source: Path, settings: ScoreSettings, groups: Sequence[ScorerGroup], writer: ResumableWriter
) -> Iterator[list[PoolRow]]:
    """Yield the pools with missing rows. Rows that are already written are marked."""
    for pool in fixed_pools(_read(source, settings, writer), _pool(groups), writer.done):
        yield [AlreadyWritten(example) if fingerprint(example.id) in writer.done else example for example in pool]


def _checked(source: Path, settings: ScoreSettings, groups: Sequence[ScorerGroup]) -> Iterator[Example]:
    """Yield the examples. Raises DataError if one lacks columns that are rewards, before any slow scorer runs."""
    columns = [group.scorer for group in groups if isinstance(group.scorer, Column)]
    for example in _read(source, settings, None):
        if settings.on_bad_row == "stop":
            replies = [column([example])[0] for column in columns]
            reasons = [reply.reason for reply in replies if isinstance(reply, Failure)]
            if reasons:
                raise DataError(_stopped(example, "; ".join(dict.fromkeys(reasons))))
        yield example


def _read(source: Path, settings: ScoreSettings, writer: ResumableWriter | None) -> Iterator[Example]:
    """Yield the shard's examples. With `on_bad_row="skip"`, invalid rows are rejected instead of raising DataError."""
    shard = parse_shard(settings.shard)
    rows = islice(read_each(source), settings.limit or None)
    examples = read_examples(rows, from_json, shard, writer, skip=settings.on_bad_row != "stop")
    return (example for example in unique(examples, writer is not None) if shard.holds(example.cluster))


def _reward_statistics(writer: ResumableWriter) -> Any:
    """Return the reward statistics, including the rows of an interrupted run."""
    from irlhf.scoring.diagnostics import RewardStatistics

    statistics = RewardStatistics()
    if writer.done:
        for where, row in read_rows(beside(writer.output, PARTIAL)):
            statistics.add(from_json(row, where))
    return statistics


def _stopped(example: Example, reason: str) -> str:
    """Return the error that stops the run. Skipping is no remedy where all rows are samples without the column."""
    return f"{example.id}: {reason}{'' if NOT_IN_SAMPLES in reason else _SKIP}"


def _write(
    example: Example,
    answer: Answer | Failure,
    rewards_by_name: Mapping[str, Reward],
    settings: ScoreSettings,
    writer: ResumableWriter,
) -> Example | None:
    """Write the row with its rewards and return it, or reject it."""
    if isinstance(answer, Failure):
        if settings.on_bad_row == "stop":
            raise answer.error(_stopped(example, answer.reason))
        writer.reject(example.id, answer.reason, example.to_json())
        return None
    values, spread = pooled(answer, rewards_by_name)
    if settings.gold:
        row = replace(example, gold={**example.gold, **values})
    else:
        spread = {name: number for name, number in example.spread.items() if name not in rewards_by_name} | spread
        row = replace(example, rewards={**example.rewards, **values}, spread=spread)
    writer.write(row)
    return row
