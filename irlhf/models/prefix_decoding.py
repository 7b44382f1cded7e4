"""Decode with a model's own forward: what prompts share is read once, and rows that have ended are dropped.

    heads     [families, head]     the beginnings that rows share, each read once
    own       [rows, own]          every row's last tokens, read behind a copy of its family's head
    steps     [open rows, 1]       one token each, until all have ended

Padding stands on the left alone, as in `generate`, so any model that generates in batches sees what it knows.
"""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer

from irlhf.models.token_sampler import TokenSampler

_ROOM = 64  # tokens that a cache grows by
_WORTH = 0.8  # of the prompt tokens; sharing that computes more than this is left
_DROP = 1 / 8  # of the rows; fewer that have ended are not worth a copy of the cache
_OWN = sorted({2**n for n in range(16)} | {3 * 2**n for n in range(15)})  # lengths to try

Prompts = Sequence[Sequence[int]]  # token ids


def decode(model: Any, prompts: Prompts, sampler: TokenSampler) -> None:
    """Put prompts through the model and then token after token, until the dice have ended every row.

    With guidance a row's two prompts follow each other. Both are rows of the cache, so that what they share
    is read once; they get the same tokens and are dropped together.
    """
    sides = sampler.decoding.sides
    assert len(prompts) == sides * len(sampler.rows)
    rows = _DecodeBatch(model)
    logits = rows.begin(prompts)
    while True:
        tokens = sampler.draw(logits)
        going = sampler.going()
        left = int(going.sum())
        if not left:
            return
        if left <= (1 - _DROP) * len(going):
            sampler.keep(going.nonzero()[:, 0])
            rows.keep(going.repeat_interleave(sides).nonzero()[:, 0])
            tokens = tokens[going]
        ids = tokens.repeat_interleave(sides)[:, None]
        logits = rows.read(ids, torch.ones_like(ids))


def remembers_all(model: Any) -> bool:
    """Return whether a model's whole memory is the keys and values of every token.

    Sliding windows, recurrent states and caches of a fixed size are another memory, and so is what a model
    prepares for generation in a way of its own; those are left to `generate`.
    """
    own_way = type(model).prepare_inputs_for_generation is not GenerationMixin.prepare_inputs_for_generation
    if own_way or model.generation_config.cache_implementation not in (None, "dynamic"):
        return False
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        return False
    with torch.inference_mode():
        output = model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=True)
    built = getattr(output, "past_key_values", None)
    if not isinstance(built, DynamicCache) or built.get_seq_length() != 1:
        return False
    return all(type(layer) is DynamicLayer for layer in [*built.layers, *DynamicCache(config=model.config).layers])


class Plan(NamedTuple):
    """Which beginnings are read once, and how many last tokens each row reads for itself."""

    own: int
    heads: list[Sequence[int]]  # one a family; none where nothing is shared
    family: list[int]  # of each row


def plan(prompts: Prompts) -> Plan:
    """Find the parting of neighbouring prompts that computes the fewest tokens, padding included."""
    width = max(map(len, prompts))
    whole = Plan(width, [], [0] * len(prompts))
    tried = [_parted(prompts, own) for own in _OWN if own < width]
    best = min(tried, key=_tokens, default=whole)
    return best if _tokens(best) < _WORTH * width * len(prompts) else whole


def _parted(prompts: Prompts, own: int) -> Plan:
    heads: list[Sequence[int]] = []
    family = []
    for prompt in prompts:
        head = prompt[: max(0, len(prompt) - own)]
        if heads and heads[-1][: len(head)] == head[: len(heads[-1])]:
            heads[-1] = max(heads[-1], head, key=len)
        else:
            heads.append(head)
        family.append(len(heads) - 1)
    return Plan(own, heads, family)


def _tokens(plan_to_count: Plan) -> int:
    return len(plan_to_count.heads) * max(map(len, plan_to_count.heads), default=0) + plan_to_count.own * len(
        plan_to_count.family
    )


class PreallocatedCacheLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values with room behind them, so that a new token does not copy all that came before it."""

    keys: torch.Tensor
    values: torch.Tensor
    room: tuple[torch.Tensor, ...] = ()  # what keys and values are the beginning of

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Append the states of new tokens and return all."""
        used = self.get_seq_length()
        end = used + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if not (self._stands_in_room() and end <= self.room[0].shape[-2]):
            held = (self.keys, self.values) if used else ()
            self.room = tuple(_enlarged(new, end) for new in (key_states, value_states))
            for room, old in zip(self.room, held, strict=False):
                room[..., :used, :] = old
        for room, new in zip(self.room, (key_states, value_states), strict=True):
            room[..., used:end, :] = new
        self.keys, self.values = (room[..., :end, :] for room in self.room)
        return self.keys, self.values

    def _stands_in_room(self) -> bool:
        """Return false where rows were chosen, or copied, since the last token."""
        return bool(self.room) and self.keys.data_ptr() == self.room[0].data_ptr()


def _enlarged(states: torch.Tensor, end: int) -> torch.Tensor:
    return states.new_empty(*states.shape[:-2], end + _ROOM, states.shape[-1])


class _DecodeBatch:
    """Rows that are being decoded, behind one cache."""

    def __init__(self, model: Any) -> None:
        self.model = model
        known = inspect.signature(model.forward).parameters
        self.spare = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self.places = "position_ids" in known
        self.cache = DynamicCache(config=model.config)
        self.cache.layers = [PreallocatedCacheLayer() for _ in self.cache.layers]
        self.mask = torch.zeros(0, 0, dtype=torch.long, device=model.device)  # [rows, tokens so far]

    def begin(self, prompts: Prompts) -> torch.Tensor:
        """Read the prompts, shared beginnings once; return the logits [rows, vocabulary] behind each."""
        own, heads, family = plan(prompts)
        if heads:
            self.read(*padded(heads, self.model.device))
            self._spread(family, [max(0, len(prompt) - own) for prompt in prompts])
        return self.read(*padded([prompt[-own:] for prompt in prompts], self.model.device))

    def read(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Put new tokens [rows, new] through the model; return the logits [rows, vocabulary] behind the last."""
        self.mask = torch.cat([self.mask, mask], 1) if len(self.mask) else mask
        where = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            **({"position_ids": where} if self.places else {}),
            **self.spare,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows alone."""
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]

    def _spread(self, family: Sequence[int], lengths: Sequence[int]) -> None:
        """Make of each family's row the rows of its members, each with the first `lengths` tokens of the head."""
        width, held = max(lengths), self.mask.shape[1]
        row = torch.tensor(family, device=self.mask.device)
        size = torch.tensor(lengths, device=self.mask.device)
        begins = held - self.mask.sum(1)[row]  # where the family's own tokens begin
        behind = torch.arange(width, device=size.device) - (width - size)[:, None]  # of the head, < 0 for padding
        columns = (begins[:, None] + behind).clamp(0, held - 1)
        for layer in self.cache.layers:
            layer.keys, layer.values = (
                tensor.transpose(1, 2)[row[:, None], columns].transpose(1, 2) for tensor in (layer.keys, layer.values)
            )
        self.mask = (behind >= 0).long()


def padded(rows: Prompts, device: torch.device, padding: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and mask [rows, longest], padded on the left."""
    width = max(map(len, rows))
    ids = [[padding] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
