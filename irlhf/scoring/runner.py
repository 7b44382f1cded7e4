"""Run all scorers on pools of examples. Each scorer runs once for all its rewards, and once for equal texts."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from irlhf.core.errors import BackendError, ConfigError
from irlhf.core.example import Example, finite
from irlhf.core.registry import did_you_mean
from irlhf.executors.thread_pool import DaemonThreadPool
from irlhf.policy.recorded_rewards import scorer_identity
from irlhf.policy.rewards_file import Reward, refuse_all
from irlhf.scoring.cache import Cache, Replies, key
from irlhf.scoring.lookup import find
from irlhf.scoring.pooled_scorers import member_names, with_members
from irlhf.scoring.scorers.base import BatchScorer, CountingScorer, Failure, Reply, Scorer, Traits

Answer = Mapping[str, float]  # reward name → raw reward
ReplyOrFailure = Reply | Failure

_THREADS = 64  # threads that wait for servers; openai_api limits the concurrent requests


@dataclass(frozen=True)
class ScorerGroup:
    """One scorer, and the rewards that are read from its replies."""

    scorer: Scorer
    rewards: Mapping[str, Reward]

    def answer(self, reply: ReplyOrFailure) -> Answer | Failure:
        """Return the rewards in a reply, or the failure. Raises ConfigError for a missing label."""
        if isinstance(reply, Failure):
            return reply
        rewards: dict[str, float] = {}
        for name, reward in self.rewards.items():
            number = read_number(name, reward, reply, self.scorer.traits)
            if isinstance(number, Failure):
                return number
            rewards[name] = number
        return rewards


def read_number(name: str, reward: Reward, reply: Reply, traits: Traits) -> float | Failure:
    """Return the number selected by `label:` and `read:`.

    logit        the model's output, unchanged
    probability  the softmax over all labels, or the logistic function if labels do not exclude each other
    difference   the log-odds of the label: its logit minus the log-sum-exp of all others (for two labels, the
                 difference of their logits)

    Returns a Failure if a number is not finite. Raises ConfigError if the scorer has no such label.
    """
    label = _label(reward.label, reply, traits)
    if isinstance(label, Failure):
        if traits.varies:
            return label
        raise ConfigError(f"{name}: {label.reason}")
    number = reply[label]
    if not finite(number):
        return Failure(f"reward '{name}' is {number!r:.40}, not a finite number")
    if not reward.read or reward.read == "logit":
        return number
    others = [other for key, other in reply.items() if key != label]
    if not all(map(finite, others)):
        return Failure(f"reward '{name}': another logit is not a finite number")
    odds = number if traits.link == "sigmoid" or not others else number - float(np.logaddexp.reduce(others))
    if reward.read == "difference":
        return odds
    from scipy.special import expit

    return float(expit(odds))


def _label(label: str, reply: Reply, traits: Traits) -> str | Failure:
    if not label and len(reply) == 1:
        return next(iter(reply))
    wanted = label or traits.usual
    if wanted in reply:
        return wanted
    if label:
        return Failure(f"the scorer has no label '{label}'{did_you_mean(label, reply)}", ConfigError)
    labels = ", ".join(reply)
    return Failure(f"the scorer returns {len(reply)} numbers ({labels}); choose one with `label:`", ConfigError)


def scorer_groups(wanted: Mapping[str, Reward], beside: Path) -> list[ScorerGroup]:
    """Return the scorers of these rewards, without duplicates. Raises ConfigError with all mistakes."""
    shared: dict[str, dict[str, Reward]] = {}
    for name, reward in with_members(wanted).items():
        shared.setdefault(reward.asks, {})[name] = reward
    groups: list[ScorerGroup] = []
    problems: list[str] = []
    unreachable: BackendError | None = None
    for rewards in shared.values():
        try:
            groups.append(ScorerGroup(find(*next(iter(rewards.items())), beside), rewards))
        except ConfigError as error:
            problems.append(str(error))
        except BackendError as error:
            unreachable = unreachable or error
    problems += [
        f"{name}: `read: {reward.read}` is for scorers that return logits; remove it"
        for group in groups
        for name, reward in group.rewards.items()
        if reward.read and not group.scorer.traits.link
    ]
    refuse_all(problems)
    if unreachable:
        raise unreachable
    return groups


def scorer_identities(rewards: Mapping[str, Reward], groups: Sequence[ScorerGroup]) -> dict[str, str]:
    """Return the identity of each reward's scorer, by the name of the reward. A pool has that of all its scorers."""
    states = {name: group.scorer.traits.identity for group in groups for name in group.rewards}
    return {
        name: scorer_identity(reward, "\n".join(states[member] for member in member_names(name, reward)))
        for name, reward in rewards.items()
    }


@dataclass(frozen=True)
class AlreadyWritten:
    """An example written by an interrupted run. It stays in its pool, but no request is sent for it."""

    example: Example

    @property
    def id(self) -> str:
        """The id of the example."""
        return self.example.id


PoolRow = Example | AlreadyWritten


class ScorerRunner:
    """Runs the scorers on one pool of examples after another."""

    def __init__(self, groups: Sequence[ScorerGroup], cache: Cache) -> None:
        self.groups = groups
        cached = any(group.scorer.traits.identity for group in groups)
        self.replies = cache.open() if cached else None
        self.threads = DaemonThreadPool(_THREADS)
        self.counted = Counter[str]()

    def new_counts(self) -> Counter[str]:
        """Return the inputs since the last call that a scorer did not read as they are, by what it changed."""
        counts = Counter[str]()
        for group in self.groups:
            counts.update(group.scorer.notes() if isinstance(group.scorer, CountingScorer) else {})
        new, self.counted = counts - self.counted, counts
        return new

    def __call__(self, pool: Sequence[PoolRow], advance: Callable[[int], None]) -> list[Answer | Failure]:
        """Return all rewards of each example, or its failure. Already written rows may lack some rewards."""
        batches = [_Batch(group, pool, self.replies) for group in self.groups]
        waited = [self.threads.submit(batch.ask, [each]) for batch in batches if batch.waits for each in batch.open]
        try:
            for batch in batches:
                if batch.open and not batch.waits:
                    batch.ask(list(batch.open))
            _collect(waited, len(pool), advance)
        finally:
            for call in waited:
                call.cancel()
        answers: list[Answer | Failure] = [{} for _ in pool]
        for batch in batches:
            for i, answer in enumerate(batch.answers()):
                if not isinstance(before := answers[i], Failure):
                    answers[i] = answer if isinstance(answer, Failure) else {**before, **answer}
        return answers


class _Batch:
    """One scorer and one pool: the cached replies, and the examples still to score."""

    def __init__(self, source: ScorerGroup, pool: Sequence[PoolRow], replies: Replies | None) -> None:
        self.source = source
        examples = [example.example if isinstance(example, AlreadyWritten) else example for example in pool]
        traits = source.scorer.traits
        self.waits = traits.waits
        self.replies = replies if traits.identity else None
        # Without an identity, equal texts may have different replies.
        self.keys = [key(traits, example) if traits.identity else example.id.encode() for example in examples]
        self.known_replies: dict[bytes, ReplyOrFailure] = {**self.replies.get(self.keys)} if self.replies else {}
        self.distinct = dict(zip(self.keys, examples, strict=True))
        # Requests to servers cost money. Other scorers get whole pools, as in a run without interruption.
        rows = zip(self.keys, pool, strict=True)
        due = {each for each, row in rows if not self.waits or isinstance(row, Example)} - self.known_replies.keys()
        self.open = {each: example for each, example in self.distinct.items() if each in due}

    def ask(self, keys: Sequence[bytes]) -> None:
        """Score some of the examples, and cache the replies at once."""
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
            raise BackendError(
                f"a scorer returned {len(replies)} replies for {len(keys)} examples; it must return one for each"
            )
        return dict(zip(keys, replies, strict=True))

    def answers(self) -> list[Answer | Failure]:
        """Return the rewards of every example of the pool; empty for an example that was not scored."""
        return [
            self.source.answer(self.known_replies[each]) if each in self.known_replies else {} for each in self.keys
        ]


def _collect(waited: Sequence[Future[None]], rows: int, advance: Callable[[int], None]) -> None:
    """Wait for all calls, raise the first error, and advance by the share of finished calls."""
    counted = 0
    for number, call in enumerate(as_completed(waited), 1):
        call.result()
        done = rows * number // len(waited)
        advance(done - counted)
        counted = done
    advance(rows - counted)
