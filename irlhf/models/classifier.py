"""Sequence classifiers: what of a conversation one is shown, and what it says of it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import jinja2
import torch

from irlhf.core.errors import ConfigError
from irlhf.core.example import Content, as_messages, as_text
from irlhf.models.loading import fitting_threads, load_classifier
from irlhf.models.prompt_encoding import Refused

CHAT, PAIR, COMPLETION = "chat", "pair", "completion"

# Tokens side by side, padding included: as many as keep a processor's caches warm, or an accelerator busy.
_BUDGET = {"cpu": 2**10}
_ELSEWHERE = 2**15

Row = Mapping[str, Sequence[int]]  # input_ids, and what else the tokenizer gives


class Shown:
    """Turns a prompt and a completion into what a classifier reads.

    chat        the conversation through the tokenizer's chat template: the default where it has one
    pair        prompt and completion as the two texts of a pair: the default elsewhere
    completion  the completion alone

    What is too long is cut at its beginning; of a pair the longer text is.
    """

    def __init__(self, tokenizer: Any, model: Any, how: str = "") -> None:
        self.tokenizer = tokenizer
        self.tokenizer.truncation_side = "left"  # the completion stands last, and it is what is judged
        self.how = how or (CHAT if tokenizer.chat_template else PAIR)
        if self.how == CHAT and not tokenizer.chat_template:
            raise ConfigError("the model's tokenizer has no chat template; say `input: pair` or `input: completion`")
        # A tokenizer that does not know says 10^30.
        self.limit = int(min(tokenizer.model_max_length, _positions(model) or tokenizer.model_max_length))
        first = tokenizer("")["input_ids"][:1]
        self.begins = tokenizer.bos_token if first == [tokenizer.bos_token_id] else ""

    def __call__(self, prompt: Content, completion: Content) -> Row:
        """Return the row of tokens. Raises Refused where there is none."""
        row: Row = self.tokenizer(*self._texts(prompt, completion), truncation=True, max_length=self.limit)
        if not row["input_ids"]:
            raise Refused("the model is shown no token of it")
        return row

    def whole(self, prompt: Content, completion: Content) -> Row:
        """Return the row of tokens as it would be if it had room."""
        row: Row = self.tokenizer(*self._texts(prompt, completion))
        return row

    def _texts(self, prompt: Content, completion: Content) -> tuple[str, ...]:
        if self.how == PAIR:
            return as_text(prompt), as_text(completion)
        if self.how == COMPLETION:
            return (as_text(completion),)
        messages = as_messages(prompt) + as_messages(completion, "assistant")
        try:
            text: str = self.tokenizer.apply_chat_template(messages, tokenize=False)
        except (jinja2.TemplateError, TypeError) as error:  # a TypeError where a tool call's content is null
            raise Refused(f"the model's chat template refuses this conversation ({error})") from error
        # Templates write the BOS token themselves; a tokenizer that adds one would make it two.
        return (text.removeprefix(self.begins),)


def load_reader(name: str, revision: str = "", how: str = "") -> "Reader":
    """Return what reads with a sequence classifier from a folder or the hub. Raises ConfigError where there is none."""
    return Reader(*load_classifier(name, revision), how)


class Reader:
    """Says what a sequence classifier that is in evaluation mode gives."""

    def __init__(self, model: Any, tokenizer: Any, how: str = "") -> None:
        self.model, self.tokenizer = model, tokenizer
        self.shown = Shown(self.tokenizer, self.model, how)
        self.labels = [str(label) for _, label in sorted(self.model.config.id2label.items())]
        if len(set(self.labels)) < len(self.labels):
            raise ConfigError(
                f"{self.model.name_or_path}: two of its labels have one name; mend id2label in its config.json"
            )
        self.pad = _padding(self.model)
        self.budget = 0 if self.pad is None else _BUDGET.get(self.model.device.type, _ELSEWHERE)

    def logits(self, rows: Sequence[Row]) -> list[list[float]]:
        """Return the logits of each row, unrounded, in the order of `labels`."""
        logits_by_row = self.logits_at(rows, range(len(rows)))
        return [logits_by_row[i] for i in range(len(rows))]

    def logits_at(self, rows: Sequence[Row], missing: Collection[int]) -> dict[int, list[float]]:
        """Return the logits of some of the rows by their indices.

        Batches are formed of all rows, and those run that hold a missing one: its last digits are the same,
        whatever else is missing.
        """
        wanted = frozenset(missing)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
        logits_by_row: dict[int, list[float]] = {}
        with fitting_threads(self.model), torch.inference_mode():
            for batch in self._batches(order, rows):
                if not wanted.isdisjoint(batch):
                    padded = self._padded([rows[i] for i in batch])
                    logits_by_row |= zip(batch, self.model(**padded).logits.float().tolist(), strict=True)
        return {i: logits_by_row[i] for i in wanted}

    def _padded(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Return rows as a batch, the shorter ones padded at their ends, where no token looks and no position moves.

        With the model's own padding, whatever the tokenizer would pad with: by it a decoder finds a row's last token.
        """
        width = max(len(row["input_ids"]) for row in rows)
        masked = [{"attention_mask": [1] * len(row["input_ids"]), **row} for row in rows]  # not all tokenizers give one
        batch = {}
        for name in masked[0]:
            fill = self.pad if name == "input_ids" else 0
            table = [[*row[name], *[fill] * (width - len(row[name]))] for row in masked]
            batch[name] = torch.tensor(table, device=self.model.device)
        return batch

    def _batches(self, order: Sequence[int], rows: Sequence[Row]) -> Iterator[list[int]]:
        """Part rows, which are in order of length, so that a batch stays within the budget of tokens."""
        batch: list[int] = []
        for index in order:
            if batch and (len(batch) + 1) * len(rows[index]["input_ids"]) > self.budget:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch


def _positions(model: Any) -> int:
    """Return how many tokens the model takes, or 0 where it does not say."""
    most = int(getattr(model.config, "max_position_embeddings", None) or 0)
    for name, part in model.named_modules():
        # RoBERTa and its kin count positions from behind the padding's.
        if name.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None:
            return most - int(part.padding_idx) - 1
    return most


def _padding(model: Any) -> int | None:
    """Return what rows side by side are padded with, or None where each has to be read alone."""
    config = model.config
    pad = getattr(config.get_text_config(), "pad_token_id", None)
    known = pad is not None and 0 <= pad < model.get_input_embeddings().num_embeddings
    # Without a padding of its own a decoder cannot tell where a padded row ends; some judge by the last place anyhow.
    return pad if known and getattr(config, "summary_type", "") != "last" else None
