"""Encode conversations for sequence classifiers, and compute their logits."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import jinja2
import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment

from irlhf.core.errors import ConfigError
from irlhf.core.example import Content, as_messages, as_text
from irlhf.models.loading import fitting_threads, load_classifier
from irlhf.models.turn_probe import Refused, render

CHAT, PAIR, TEXT, COMPLETION, TRANSCRIPT = "chat", "pair", "text", "completion", "transcript"
PROMPT_CUT, COMPLETION_CUT = "prompts", "completions"  # what truncated inputs lost

# Tokens per batch, padding included: small enough for CPU caches, large enough to use an accelerator fully.
_BUDGET = {"cpu": 2**10}
_ACCELERATOR_BUDGET = 2**15

# The speakers of Anthropic's transcripts, in which many reward models of HH read a conversation.
_SPEAKERS = {"user": "Human", "assistant": "Assistant"}
_JINJA = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)

Row = Mapping[str, Sequence[int]]  # input_ids and the other fields of the tokenizer


class Shown:
    """Encodes a prompt and a completion for a classifier.

    chat        the conversation, rendered by the chat template; the default if there is one
    pair        prompt and completion as a text pair; the default otherwise
    text        prompt and completion as one text, with a space between them
    completion  the completion only
    transcript  the pair of Anthropic's transcript of the prompt ("\\n\\nHuman: ...\\n\\nAssistant:") and the completion

    A Jinja `template` takes the place of these. It renders one text from `messages` (the conversation with the
    completion), `prompt` and `completion` (texts).

    Long inputs are truncated at the beginning. In a pair, the prompt is truncated, and the completion only if it does
    not fit alone. `cut` counts truncated inputs by what they lost.
    """

    def __init__(self, tokenizer: Any, model: Any, how: str = "", template: str = "") -> None:
        self.tokenizer = tokenizer
        try:
            self.template = _JINJA.from_string(template) if template else None
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(f"{how}:{error.lineno}: invalid Jinja ({error.message})") from error
        self.tokenizer.truncation_side = "left"  # keeps the completion, which is last
        self.how = how or (CHAT if tokenizer.chat_template else PAIR)
        if self.how == CHAT and not tokenizer.chat_template:
            raise ConfigError("the model's tokenizer has no chat template; use `input: pair` or `input: completion`")
        # Tokenizers without a limit report 10^30.
        self.limit = int(min(tokenizer.model_max_length, _positions(model) or tokenizer.model_max_length))
        first = tokenizer("")["input_ids"][:1]
        self.cut: Counter[str] = Counter()
        self.begins = tokenizer.bos_token if first == [tokenizer.bos_token_id] else ""

    def __call__(self, prompt: Content, completion: Content) -> Row:
        """Return the token ids, truncated to the limit. Raises Refused if there are none."""
        texts = self._texts(prompt, completion)
        row: Row = self.tokenizer(*texts)
        if (length := len(row["input_ids"])) > self.limit:
            own = self._completion_tokens(texts, completion)
            # Of a prompt, at least its first and last special tokens stay.
            fits = own + self.tokenizer.num_special_tokens_to_add(pair=len(texts) > 1) < self.limit
            self.cut[PROMPT_CUT if fits and length > own else COMPLETION_CUT] += 1
            how = "only_first" if fits and len(texts) > 1 else True
            row = self.tokenizer(*texts, truncation=how, max_length=self.limit)
        if not row["input_ids"]:
            raise Refused("the text has no tokens")
        return row

    def whole(self, prompt: Content, completion: Content) -> Row:
        """Return the token ids without truncation."""
        row: Row = self.tokenizer(*self._texts(prompt, completion))
        return row

    def _completion_tokens(self, texts: tuple[str, ...], completion: Content) -> int:
        """Return the tokens of the completion, approximately if it is within a longer text."""
        text = texts[-1] if self.how in (PAIR, TRANSCRIPT, COMPLETION) else as_text(completion)
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _texts(self, prompt: Content, completion: Content) -> tuple[str, ...]:
        messages = as_messages(prompt) + as_messages(completion, "assistant")
        if self.template:
            try:
                text = self.template.render(messages=messages, prompt=as_text(prompt), completion=as_text(completion))
            except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
                raise Refused(f"{self.how} fails on this conversation ({error})") from error
            return (text,)
        if self.how == PAIR:
            return as_text(prompt), as_text(completion)
        if self.how == TRANSCRIPT:
            return transcript(prompt), as_text(completion)
        if self.how in (TEXT, COMPLETION):
            return (" ".join([as_text(prompt)] * (self.how == TEXT) + [as_text(completion)]),)
        text = render(self.tokenizer, messages, generation=False)
        # Chat templates write the BOS token; remove it where the tokenizer adds another.
        return (text.removeprefix(self.begins),)


def transcript(prompt: Content) -> str:
    """Return a prompt as Anthropic's HH data writes it, up to the completion. Other roles keep their name."""
    turns = [(_SPEAKERS.get(turn["role"], turn["role"]), turn.get("content") or "") for turn in as_messages(prompt)]
    return "".join(f"\n\n{speaker}: {text}" for speaker, text in turns) + "\n\nAssistant:"


def load_reader(name: str, revision: str = "", how: str = "", template: str = "") -> "Reader":
    """Return a `Reader` of a sequence classifier from a folder or the hub. Raises ConfigError if there is none."""
    return Reader(*load_classifier(name, revision), how, template)


class Reader:
    """Computes the logits of a sequence classifier in evaluation mode."""

    def __init__(self, model: Any, tokenizer: Any, how: str = "", template: str = "") -> None:
        self.model, self.tokenizer = model, tokenizer
        self.shown = Shown(self.tokenizer, self.model, how, template)
        self.labels = [str(label) for _, label in sorted(self.model.config.id2label.items())]
        if len(set(self.labels)) < len(self.labels):
            raise ConfigError(f"{self.model.name_or_path}: two labels have the same name; fix id2label in config.json")
        self.pad = _padding(self.model)
        # A reward model of ratings learns standardized ones; its rewards are in the rating's units.
        self.units: Sequence[float] = getattr(self.model.config, "rating_units", (0.0, 1.0))  # mean, deviation
        self.budget = 0 if self.pad is None else _BUDGET.get(self.model.device.type, _ACCELERATOR_BUDGET)

    def logits(self, rows: Sequence[Row]) -> list[list[float]]:
        """Return the unrounded logits [rows, labels], in the units of its ratings if it learnt ratings."""
        logits_by_row = self.logits_at(rows, range(len(rows)))
        return [logits_by_row[i] for i in range(len(rows))]

    def logits_at(self, rows: Sequence[Row], missing: Collection[int]) -> dict[int, list[float]]:
        """Return the logits of the rows with the indices in `missing`.

        Batches are formed from all rows, and those with a missing row are computed. The last digits of a result
        therefore do not depend on which other rows are missing.
        """
        missing_rows = frozenset(missing)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
        logits_by_row: dict[int, list[float]] = {}
        with fitting_threads(self.model), torch.inference_mode():
            for batch in self._batches(order, rows):
                if not missing_rows.isdisjoint(batch):
                    padded = self._padded([rows[i] for i in batch])
                    logits = self.model(**padded).logits.float() * self.units[1] + self.units[0]
                    logits_by_row |= zip(batch, logits.tolist(), strict=True)
        return {i: logits_by_row[i] for i in missing_rows}

    def _padded(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Return rows as a batch, padded on the right.

        Uses the padding token of the model, not of the tokenizer: decoders use it to find the last token of a row.
        """
        width = max(len(row["input_ids"]) for row in rows)
        masked = [
            {"attention_mask": [1] * len(row["input_ids"]), **row} for row in rows
        ]  # some tokenizers return no mask
        batch = {}
        for name in masked[0]:
            fill = self.pad if name == "input_ids" else 0
            table = [[*row[name], *[fill] * (width - len(row[name]))] for row in masked]
            batch[name] = torch.tensor(table, device=self.model.device)
        return batch

    def _batches(self, order: Sequence[int], rows: Sequence[Row]) -> Iterator[list[int]]:
        """Yield batches of rows, sorted by length, within the budget of tokens."""
        batch: list[int] = []
        for index in order:
            if batch and (len(batch) + 1) * len(rows[index]["input_ids"]) > self.budget:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch


def _positions(model: Any) -> int:
    """Return the maximum number of tokens, or 0 if the configuration has none."""
    most = int(getattr(model.config, "max_position_embeddings", None) or 0)
    for name, part in model.named_modules():
        # RoBERTa models count positions from padding_idx + 1.
        if name.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None:
            return most - int(part.padding_idx) - 1
    return most


def _padding(model: Any) -> int | None:
    """Return the padding token id, or None if rows must not be batched."""
    config = model.config
    pad = getattr(config.get_text_config(), "pad_token_id", None)
    known = pad is not None and 0 <= pad < model.get_input_embeddings().num_embeddings
    # Decoders need a padding token to find the end of a row; summary_type "last" always reads the last position.
    return pad if known and getattr(config, "summary_type", "") != "last" else None
