"""All scorers of a run, asked together: each once for all the rewards that it gives, and for equal texts once."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from pathlib import Path

from irlhf.core.errors import BackendError, ConfigError
from irlhf.core.example import Example
from irlhf.executors.thread_pool import DaemonThreadPool
from irlhf.policy.rewards_file import Reward
from irlhf.scoring.cache import Cache, Replies, key
from irlhf.scoring.lookup import find
from irlhf.scoring.scorers.base import BatchScorer, Failure, Reply, Scorer
from irlhf.scoring.select_value import read

Answer = Mapping[str, float]  # reward name → raw reward
ReplyOrFailure = Reply | Failure

_THREADS = 64  # that wait for somebody else's answers; how many requests are under way is the host's affair


@dataclass(frozen=True)
class ScorerGroup:
    """One scorer, and the rewards that are read off its replies."""

    scorer: Scorer
    rewards: Mapping[str, Reward]

    def answer(self, said: ReplyOrFailure) -> Answer | Failure:
        """Return the rewards that stand in a reply."""
        if isinstance(said, Failure):
            return said
        found: dict[str, float] = {}
        for name, reward in self.rewards.items():
            number = read(name, reward, said, self.scorer.traits)
            if isinstance(number, Failure):
                return number
            found[name] = number
        return found


def scorer_groups(wanted: Mapping[str, Reward], beside: Path) -> list[ScorerGroup]:
    """Return whom to ask for these rewards, each scorer once. Raises ConfigError."""
    shared: dict[str, dict[str, Reward]] = {}
    for name, reward in wanted.items():
        shared.setdefault(reward.asks, {})[name] = reward
    made = [ScorerGroup(find(*next(iter(some.items())), beside), some) for some in shared.values()]
    for one in made:
        for name, reward in one.rewards.items():
            if reward.read and not one.scorer.traits.link:
                raise ConfigError(f"{name}: `read: {reward.read}` belongs to a scorer that gives logits; leave it out")
    return made


@dataclass(frozen=True)
class AlreadyWritten:
    """An example that an interrupted run wrote: it keeps its place in its pool, and no server is asked about it."""

    example: Example

    @property
    def id(self) -> str:
        """The example's own id."""
        return self.example.id


PoolRow = Example | AlreadyWritten


class ScorerRunner:
    """Asks the scorers about one pool of examples after another."""

    def __init__(self, asked: Sequence[ScorerGroup], cache: Cache) -> None:
        self.sources = asked
        keeps = any(one.scorer.traits.identity for one in asked)
        self.replies = cache.open() if keeps else None
        self.crew = DaemonThreadPool(_THREADS)

    def __call__(self, pool: Sequence[PoolRow], advance: Callable[[int], None]) -> list[Answer | Failure]:
        """Return what all of them together say of each example. Of a row that was written some may say nothing."""
        rounds = [_Batch(one, pool, self.replies) for one in self.sources]
        waited = [self.crew.submit(one.ask, [each]) for one in rounds if one.waits for each in one.open]
        try:
            for one in rounds:
                if one.open and not one.waits:
                    one.ask(list(one.open))
            _collect(waited, len(pool), advance)
        finally:
            for call in waited:
                call.cancel()
        answers: list[Answer | Failure] = [{} for _ in pool]
        for one in rounds:
            answers = [_merged(*pair) for pair in zip(answers, one.answers(), strict=True)]
        return answers


class _Batch:
    """One scorer and one pool: what it said before, and what it has to be asked."""

    def __init__(self, source: ScorerGroup, pool: Sequence[PoolRow], replies: Replies | None) -> None:
        self.source = source
        examples = [one.example if isinstance(one, AlreadyWritten) else one for one in pool]
        traits = source.scorer.traits
        self.waits = traits.waits
        self.replies = replies if traits.identity else None
        # Without an identity equal texts may have different replies.
        self.keys = [key(traits, one) if traits.identity else one.id.encode() for one in examples]
        self.said: dict[bytes, ReplyOrFailure] = {**self.replies.get(self.keys)} if self.replies else {}
        self.distinct = dict(zip(self.keys, examples, strict=True))
        # Servers are paid for each request. All others get whole pools, as in a run that was not interrupted.
        due = {each for each, one in zip(self.keys, pool, strict=True) if not self.waits or isinstance(one, Example)}
        self.open = {each: one for each, one in self.distinct.items() if each in due and each not in self.said}

    def ask(self, keys: Sequence[bytes]) -> None:
        """Ask about some of the examples, and keep what is said at once."""
        found = self._replies(keys)
        if self.replies:
            self.replies.put({each: said for each, said in found.items() if not isinstance(said, Failure)})
        self.said.update(found)

    def _replies(self, keys: Sequence[bytes]) -> dict[bytes, ReplyOrFailure]:
        scorer = self.source.scorer
        if isinstance(scorer, BatchScorer):
            known = list(self.distinct)
            wanted = [i for i, each in enumerate(known) if each in self.open]
            return {known[i]: said for i, said in scorer.replies_at(list(self.distinct.values()), wanted).items()}
        replies = scorer([self.open[each] for each in keys])
        if len(replies) != len(keys):
            raise BackendError(f"a scorer gave {len(replies)} answers to {len(keys)} examples; one each is due")
        return dict(zip(keys, replies, strict=True))

    def answers(self) -> list[Answer | Failure]:
        """Return the rewards of every example of the pool, none for one that nobody was asked about."""
        return [self.source.answer(self.said[each]) if each in self.said else {} for each in self.keys]


def _collect(waited: Sequence[Future[None]], rows: int, advance: Callable[[int], None]) -> None:
    """Wait for all, raise what one of them raised, and count rows as their share of the answers comes."""
    told = 0
    for number, call in enumerate(as_completed(waited), 1):
        call.result()
        done = rows * number // len(waited)
        advance(done - told)
        told = done
    advance(rows - told)


def _merged(one: Answer | Failure, other: Answer | Failure) -> Answer | Failure:
    if isinstance(one, Failure):
        return one
    return other if isinstance(other, Failure) else {**one, **other}
