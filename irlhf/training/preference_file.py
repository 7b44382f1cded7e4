"""Write pairs for reward-augmented DPO in OpenAI's preference format.

Each completion is preferred under its own target:

{"input": {"messages": [prompt with target a]}, "preferred_output": [a], "non_preferred_output": [b]}
{"input": {"messages": [prompt with target b]}, "preferred_output": [b], "non_preferred_output": [a]}
"""

from collections.abc import Iterator, Sequence
from typing import Any

from irlhf.core import console
from irlhf.core.example import Example, Message, as_messages
from irlhf.core.tool_calls import with_arguments
from irlhf.policy.policy_file import Policy
from irlhf.training.settings import FinetuneSettings
from irlhf.training.target_draw import Rewarded, check_pairs, pair_random, paired, preferences
from irlhf.training.training_set import TrainingSet, tool_fields

PreferenceRow = tuple[str, dict[str, Any]]  # the id of the preferred example, and the line of the file


def training_preferences(training: TrainingSet, policy: Policy, settings: FinetuneSettings) -> Iterator[PreferenceRow]:
    """Yield the preference rows of the training split. Raises DataError if no completions can be compared."""
    pairs, skipped = _pairs(training, policy, training.train, settings)
    if skipped:
        console.warn(
            f"{skipped:,} pairs skipped: DPO needs two completions of the same prompt, and these share only the group"
        )
    compared = 0
    for row in _lines(training, policy, pairs, settings):
        compared += 1
        yield row
    check_pairs(len(pairs), compared, settings.objective)


def preference_rows(
    training: TrainingSet, policy: Policy, rows: Sequence[Example], settings: FinetuneSettings
) -> Iterator[PreferenceRow]:
    """Yield the preference rows of any examples, such as validation rows."""
    pairs, _ = _pairs(training, policy, rows, settings)
    return _lines(training, policy, pairs, settings)


def _pairs(
    training: TrainingSet, policy: Policy, rows: Sequence[Example], settings: FinetuneSettings
) -> tuple[list[list[Rewarded]], int]:
    """Return the pairs that local training compares in its first epoch, and the number with different prompts."""
    actual = training.actual(policy)
    rewarded = [Rewarded(example, [], actual[example.id]) for example in rows]
    pairs = [pair for pair in paired(rewarded, f"{settings.seed}/0") if len(pair) == 2]
    kept = [pair for pair in pairs if pair[0].example.prompt == pair[1].example.prompt]
    return kept, len(pairs) - len(kept)


def _lines(
    training: TrainingSet, policy: Policy, pairs: Sequence[Sequence[Rewarded]], settings: FinetuneSettings
) -> Iterator[PreferenceRow]:
    targets = training.target_draw(policy, settings)
    for pair in pairs:
        for wishes, better, worse in preferences(pair, targets, pair_random(pair, f"{settings.seed}/0")):
            prompt = policy.template.render(better.example.prompt, wishes, policy.names)
            yield (
                better.example.id,
                {
                    "input": {"messages": _as_sent(prompt), **tool_fields(better.example)},
                    "preferred_output": _as_sent(as_messages(better.example.completion, "assistant")),
                    "non_preferred_output": _as_sent(as_messages(worse.example.completion, "assistant")),
                },
            )


def _as_sent(messages: Sequence[Message]) -> list[Message]:
    return [with_arguments(message, parsed=False) for message in messages]
