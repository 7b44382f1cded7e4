"""Reward models: any Hugging Face sequence-classification checkpoint, from a folder or the hub."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from irlhf.engines.local import load_classifier
from irlhf.errors import ConfigError
from irlhf.records import Example, as_messages, as_text
from irlhf.registry import did_you_mean
from irlhf.rewards import Reward
from irlhf.score.scorers import Answer, Failure

# Tokens side by side, padding included: as many as keep a processor's caches warm, or an accelerator busy.
_BUDGET = {"cpu": 2**10}
_ELSEWHERE = 2**15


class Classifier:
    """One logit of a sequence classifier, on the model's own scale.

    A tokenizer with a chat template gets the conversation through it; any other gets the pair
    (prompt, completion). With several labels, `label:` names the one that is read.
    """

    def __init__(self, name: str, argument: str, reward: Reward) -> None:
        self.name = name
        self.model, self.tokenizer = load_classifier(argument)
        self.column = _column(name, self.model.config, reward.label)
        self.limit = _limit(self.model.config, self.tokenizer)
        # Without a padding token of its own a decoder cannot tell where a padded row ends.
        alone = self.model.config.pad_token_id is None
        self.budget = 0 if alone else _BUDGET.get(self.model.device.type, _ELSEWHERE)
        first = self.tokenizer("")["input_ids"][:1]
        self.begins = self.tokenizer.bos_token if first == [self.tokenizer.bos_token_id] else ""

    def __call__(self, examples: Sequence[Example]) -> list[Answer | Failure]:
        """Return the logit of each example, unrounded; equal texts are read once."""
        rows = [self._tokens(example) for example in examples]
        keys = [_key(row) for row in rows]
        different = sorted(dict(zip(keys, rows, strict=True)).values(), key=lambda row: len(row["input_ids"]))
        logits: dict[Any, float] = {}
        for batch in self._batches(different):
            padded = self.tokenizer.pad(batch, return_tensors="pt").to(self.model.device)
            with torch.inference_mode():
                found = self.model(**padded).logits[:, self.column].float().tolist()
            logits.update(zip(map(_key, batch), found, strict=True))
        return [{self.name: logits[key]} for key in keys]

    def _batches(self, rows: Sequence[Any]) -> Iterator[list[Any]]:
        """Part rows, which are in order of length, so that a batch stays within the budget of tokens."""
        batch: list[Any] = []
        for row in rows:
            if batch and (len(batch) + 1) * len(row["input_ids"]) > self.budget:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _tokens(self, example: Example) -> Any:
        if not self.tokenizer.chat_template:
            pair = as_text(example.prompt), as_text(example.completion)
            return self.tokenizer(*pair, truncation=True, max_length=self.limit)
        messages = as_messages(example.prompt) + as_messages(example.completion, "assistant")
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        # Templates write the BOS token themselves; a tokenizer that adds one would make it two.
        text = text.removeprefix(self.begins)
        return self.tokenizer(text, truncation=True, max_length=self.limit)


def _key(row: Any) -> tuple[tuple[int, ...], ...]:
    """Return what two rows have in common when the model reads the same."""
    return tuple(map(tuple, row.values()))


def _column(name: str, config: Any, label: str) -> int:
    labels: dict[int, str] = dict(config.id2label)
    if config.num_labels == 1 and not label:
        return 0
    for index, known in labels.items():
        if known == label:
            return int(index)
    if label:
        raise ConfigError(f"{name}: the model has no label '{label}'{did_you_mean(label, labels.values())}")
    several = ", ".join(labels.values())
    raise ConfigError(f"{name}: the model has {config.num_labels} labels ({several}); name one as `label:`")


def _limit(config: Any, tokenizer: Any) -> int:
    """Return how many tokens the model takes; a tokenizer that does not know says 10^30."""
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    return int(min(tokenizer.model_max_length, positions))
