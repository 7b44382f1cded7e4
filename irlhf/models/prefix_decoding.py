"""Decode with the forward method of a model; shared prefixes are computed once, and finished rows are dropped.

    heads     [families, head]     shared prefixes, each computed once
    own       [rows, own]          the last tokens of each row, after a copy of the head of its family
    steps     [open rows, 1]       one token per row, until all rows have ended

Padding is on the left only, as in `generate`.
"""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer

from irlhf.models.token_sampler import TokenSampler

_ROOM = 64  # tokens by which a cache grows
_WORTH = 0.8  # share prefixes only below this fraction of the prompt tokens
_DROP = 1 / 8  # fraction of finished rows from which copying the cache pays
_OWN = sorted({2**n for n in range(16)} | {3 * 2**n for n in range(15)})  # lengths to try

Prompts = Sequence[Sequence[int]]  # token ids


def decode(model: Any, prompts: Prompts, sampler: TokenSampler) -> None:
    """Sample tokens after the prompts until the sampler has ended every row.

    With guidance, the two prompts of a row are consecutive. Both are rows of the cache, get the same tokens and are
    dropped together; their shared prefix is computed once.
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
    """Return whether the state of a model consists of the keys and values of all tokens.

    This excludes sliding windows, recurrent states, fixed-size caches and models with their own
    `prepare_inputs_for_generation`. Use `generate` for these.
    """
    custom_inputs = type(model).prepare_inputs_for_generation is not GenerationMixin.prepare_inputs_for_generation
    if custom_inputs or model.generation_config.cache_implementation not in (None, "dynamic"):
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
    """The shared prefixes, and the number of last tokens that each row computes separately."""

    own: int
    heads: list[Sequence[int]]  # one per family; empty if nothing is shared
    family: list[int]  # of each row


def plan(prompts: Prompts) -> Plan:
    """Return the split of neighbouring prompts that computes the fewest tokens, padding included."""
    width = max(map(len, prompts))
    whole = Plan(width, [], [0] * len(prompts))
    tried = [_split(prompts, own) for own in _OWN if own < width]
    best = min(tried, key=_tokens, default=whole)
    return best if _tokens(best) < _WORTH * width * len(prompts) else whole


def _split(prompts: Prompts, own: int) -> Plan:
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
    """A cache layer with spare capacity, so that a new token does not copy all earlier states."""

    keys: torch.Tensor
    values: torch.Tensor
    room: tuple[torch.Tensor, ...] = ()  # buffers; keys and values are their beginnings

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Append the states of new tokens and return all keys and values."""
        used = self.get_seq_length()
        end = used + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if not (self._uses_buffers() and end <= self.room[0].shape[-2]):
            old_states = (self.keys, self.values) if used else ()
            self.room = tuple(_enlarged(new, end) for new in (key_states, value_states))
            for room, old in zip(self.room, old_states, strict=False):
                room[..., :used, :] = old
        for room, new in zip(self.room, (key_states, value_states), strict=True):
            room[..., used:end, :] = new
        self.keys, self.values = (room[..., :end, :] for room in self.room)
        return self.keys, self.values

    def _uses_buffers(self) -> bool:
        """Return whether keys and values are still views of the buffers; selecting rows copies them."""
        return bool(self.room) and self.keys.data_ptr() == self.room[0].data_ptr()


def _enlarged(states: torch.Tensor, end: int) -> torch.Tensor:
    return states.new_empty(*states.shape[:-2], end + _ROOM, states.shape[-1])


class _DecodeBatch:
    """The rows that are being decoded, with their shared cache."""

    def __init__(self, model: Any) -> None:
        self.model = model
        known = inspect.signature(model.forward).parameters
        self.spare = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self.places = "position_ids" in known
        self.cache = DynamicCache(config=model.config)
        self.cache.layers = [PreallocatedCacheLayer() for _ in self.cache.layers]
        self.mask = torch.zeros(0, 0, dtype=torch.long, device=model.device)  # [rows, tokens so far]

    def begin(self, prompts: Prompts) -> torch.Tensor:
        """Read the prompts and return the logits [rows, vocabulary] after each; shared prefixes are computed once."""
        own, heads, family = plan(prompts)
        if heads:
            self.read(*padded(heads, self.model.device))
            self._spread(family, [max(0, len(prompt) - own) for prompt in prompts])
        return self.read(*padded([prompt[-own:] for prompt in prompts], self.model.device))

    def read(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Read new tokens [rows, new] and return the logits [rows, vocabulary] after the last one."""
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
        """Drop all other rows."""
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]

    def _spread(self, family: Sequence[int], lengths: Sequence[int]) -> None:
        """Replace the row of each family by rows of its members, each with the first `lengths` tokens of the head."""
        width, used = max(lengths), self.mask.shape[1]
        row = torch.tensor(family, device=self.mask.device)
        size = torch.tensor(lengths, device=self.mask.device)
        begins = used - self.mask.sum(1)[row]  # start of the tokens of the family, after its padding
        offset = torch.arange(width, device=size.device) - (width - size)[:, None]  # in the head, < 0 for padding
        columns = (begins[:, None] + offset).clamp(0, used - 1)
        for layer in self.cache.layers:
            layer.keys, layer.values = (
                tensor.transpose(1, 2)[row[:, None], columns].transpose(1, 2) for tensor in (layer.keys, layer.values)
            )
        self.mask = (offset >= 0).long()


def padded(rows: Prompts, device: torch.device, padding: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and attention mask [rows, longest], padded on the left."""
    width = max(map(len, rows))
    ids = [[padding] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
