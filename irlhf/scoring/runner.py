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

    def answer(self, reply: ReplyOrFailure) -> Answer | Failure:
        """Return the rewards that stand in a reply."""
        if isinstance(reply, Failure):
            return reply
        rewards: dict[str, float] = {}
        for name, reward in self.rewards.items():
            number = read(name, reward, reply, self.scorer.traits)
            if isinstance(number, Failure):
                return number
            rewards[name] = number
        return rewards


def scorer_groups(wanted: Mapping[str, Reward], beside: Path) -> list[ScorerGroup]:
    """Return whom to ask for these rewards, each scorer once. Raises ConfigError."""
    shared: dict[str, dict[str, Reward]] = {}
    for name, reward in wanted.items():
        shared.setdefault(reward.asks, {})[name] = reward
    made = [ScorerGroup(find(*next(iter(some.items())), beside), some) for some in shared.values()]
    for group in made:
        for name, reward in group.rewards.items():
            if reward.read and not group.scorer.traits.link:
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

    def __init__(self, groups: Sequence[ScorerGroup], cache: Cache) -> None:
        self.sources = groups
        keeps = any(group.scorer.traits.identity for group in groups)
        self.replies = cache.open() if keeps else None
        self.threads = DaemonThreadPool(_THREADS)

    def __call__(self, pool: Sequence[PoolRow], advance: Callable[[int], None]) -> list[Answer | Failure]:
        """Return what all of them together say of each example. Of a row that was written some may say nothing."""
        rounds = [_Batch(batch, pool, self.replies) for batch in self.sources]
        waited = [self.threads.submit(batch.ask, [each]) for batch in rounds if batch.waits for each in batch.open]
        try:
            for batch in rounds:
                if batch.open and not batch.waits:
                    batch.ask(list(batch.open))
            _collect(waited, len(pool), advance)
        finally:
            for call in waited:
                call.cancel()
        answers: list[Answer | Failure] = [{} for _ in pool]
        for batch in rounds:
            answers = [_merged(*pair) for pair in zip(answers, batch.answers(), strict=True)]
        return answers


class _Batch:
    """One scorer and one pool: what it said before, and what it has to be asked."""

    def __init__(self, source: ScorerGroup, pool: Sequence[PoolRow], replies: Replies | None) -> None:
        self.source = source
        examples = [example.example if isinstance(example, AlreadyWritten) else example for example in pool]
        traits = source.scorer.traits
        self.waits = traits.waits
        self.replies = replies if traits.identity else None
        # Without an identity equal texts may have different replies.
        self.keys = [key(traits, example) if traits.identity else example.id.encode() for example in examples]
        self.known_replies: dict[bytes, ReplyOrFailure] = {**self.replies.get(self.keys)} if self.replies else {}
        self.distinct = dict(zip(self.keys, examples, strict=True))
        # Servers are paid for each request. All others get whole pools, as in a run that was not interrupted.
        due = {
            each
            for each, example in zip(self.keys, pool, strict=True)
            if not self.waits or isinstance(example, Example)
        }
        self.open = {
            each: example for each, example in self.distinct.items() if each in due and each not in self.known_replies
        }

    def ask(self, keys: Sequence[bytes]) -> None:
        """Ask about some of the examples, and keep what is said at once."""
        replies = self._replies(keys)
        if self.replies:
            self.replies.put({each: reply for each, reply in replies.items() if not isinstance(reply, Failure)})
        self.known_replies.update(replies)

    def _replies(self, keys: Sequence[bytes]) -> dict[bytes, ReplyOrFailure]:
        scorer = self.source.scorer
        if isinstance(scorer, BatchScorer):
            known = list(self.distinct)
            wanted = [i for i, each in enumerate(known) if each in self.open]
            return {known[i]: reply for i, reply in scorer.replies_at(list(self.distinct.values()), wanted).items()}
        replies = scorer([self.open[each] for each in keys])
        if len(replies) != len(keys):
            raise BackendError(f"a scorer gave {len(replies)} answers to {len(keys)} examples; one each is due")
        return dict(zip(keys, replies, strict=True))

    def answers(self) -> list[Answer | Failure]:
        """Return the rewards of every example of the pool, none for one that nobody was asked about."""
        return [
            self.source.answer(self.known_replies[each]) if each in self.known_replies else {} for each in self.keys
        ]


def _collect(waited: Sequence[Future[None]], rows: int, advance: Callable[[int], None]) -> None:
    """Wait for all, raise what one of them raised, and count rows as their share of the answers comes."""
    counted = 0
    for number, call in enumerate(as_completed(waited), 1):
        call.result()
        done = rows * number // len(waited)
        advance(done - counted)
        counted = done
    advance(rows - counted)


def _merged(left: Answer | Failure, right: Answer | Failure) -> Answer | Failure:
    if isinstance(left, Failure):
        return left
    return right if isinstance(right, Failure) else {**left, **right}
