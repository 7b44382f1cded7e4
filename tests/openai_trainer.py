"""A fine-tuning host's engine room, small: a `tiny` model trained on the messages of a training file, and asked."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from openai_routes import Said
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from irlhf.models.generation import generate
from irlhf.models.tiny import make_tiny
from irlhf.models.token_sampler import Decoding

CONTEXT = 256
IGNORED = -100
TOP = 20


class Trained:
    """A model that speaks token by token, from its own logits."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer

    def __call__(
        self, messages: Sequence[Mapping[str, Any]], seed: int, most: int, how: Mapping[str, float]
    ) -> list[Said]:
        ids = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False)
        decoding = Decoding(how["temperature"], how["top_p"], min(most, CONTEXT // 2))
        (drawn,) = generate(self.model, self.tokenizer, [ids[-CONTEXT // 2 :]], [seed], decoding)
        with torch.inference_mode():
            whole = torch.tensor([ids[-CONTEXT // 2 :] + list(drawn.ids)])
            told = self.model(whole).logits[0, -len(drawn.ids) - 1 : -1].float().log_softmax(-1)
        return [self._said(token, row) for token, row in zip(drawn.ids, told, strict=True)]

    def _said(self, token: int, row: torch.Tensor) -> Said:
        numbers, places = row.topk(TOP)
        top = tuple((self.tokenizer.decode([int(i)]), float(n)) for i, n in zip(places, numbers, strict=True))
        return Said(self.tokenizer.decode([token]), float(row[token]), top, token == self.tokenizer.eos_token_id)


def train(content: bytes, steps: int = 400, lines: Sequence[str] = ()) -> Trained:
    """Train on the last message of every row. `lines` are reward lines that become one token each."""
    rows = [json.loads(row)["messages"] for row in content.decode().splitlines()]
    model, tokenizer = make_tiny(rows, lines, CONTEXT, seed=0)
    encoded = [encode(tokenizer, row) for row in rows]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = [encoded[i] for i in torch.randint(len(encoded), (16,), generator=draw).tolist()]
        ids = pad_sequence([one for one, _ in batch], batch_first=True, padding_value=tokenizer.pad_token_id)
        labels = pad_sequence([two for _, two in batch], batch_first=True, padding_value=IGNORED)
        logits = model(ids).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Trained(model, tokenizer)


def encode(tokenizer: Any, messages: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and labels: what is learnt is the last message and the end of its turn."""
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    completion = tokenizer(f" {messages[-1]['content']}")["input_ids"] + [tokenizer.eos_token_id]
    ids = torch.tensor((prompt + completion)[-CONTEXT:])
    labels = torch.tensor(([IGNORED] * len(prompt) + completion)[-CONTEXT:])
    return ids, labels
