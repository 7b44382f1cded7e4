"""Draw from the weights of a policy or base, and read what was drawn with a reference that is asked for nothing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irlhf.core.entropy_bounds import k3
from irlhf.core.errors import ConfigError
from irlhf.models.generation import Drawn, generate
from irlhf.models.loading import context_of, fitting_threads, load_causal
from irlhf.models.precision import DTYPES
from irlhf.models.token_logprobs import logprobs
from irlhf.models.token_sampler import Decoding
from irlhf.policy.policy_file import FILE, Policy, read_policy
from irlhf.policy.templates import RequestedValue
from irlhf.sampling.opposite_target import opposite
from irlhf.sampling.prompts import Prompts, prompts_for
from irlhf.sampling.settings import OPPOSITE, SampleSettings
from irlhf.sampling.types import SampleRequest


@dataclass(frozen=True)
class _Loaded:
    """A model in this process, and how prompts are put to it."""

    model: Any
    prompts: Prompts

    @property
    def tokenizer(self) -> Any:
        return self.prompts.chat.tokenizer


class LocalBackend:
    """A policy, or a base model, loaded into this process."""

    def __init__(self, folder: Path, policy: Policy, settings: SampleSettings) -> None:
        self.policy_file = policy
        self.policy = _load(str(folder), policy, settings)
        self.reference = _reference(self.policy, folder, settings) if settings.reference else None
        self.batch = settings.batch
        self.against = settings.against
        self.raw = settings.raw
        self.decoding = Decoding(settings.temperature, settings.top_p, settings.max_tokens, settings.guidance)

    def __call__(self, asks: Sequence[SampleRequest], advance: Callable[[int], None]) -> list[Drawn]:
        """Return one completion for each ask, in their order; `advance` counts them as they come."""
        prompts = [self.policy.prompts(ask, ask.prompt_values) for ask in asks]
        order = _order(asks, prompts)
        drawn: dict[int, Drawn] = {}
        for start in range(0, len(order), self.batch):
            batch = order[start : start + self.batch]
            rows = self._draw([asks[i] for i in batch], [prompts[i] for i in batch])
            drawn.update(zip(batch, rows, strict=True))
            advance(len(batch))
        return [drawn[i] for i in range(len(asks))]

    def _draw(self, asks: Sequence[SampleRequest], prompts: Sequence[Sequence[int]]) -> list[Drawn]:
        model, tokenizer = self.policy.model, self.policy.tokenizer
        if self.decoding.sides > 1:
            other = [self.policy.prompts(ask, self._other(ask)) for ask in asks]
            prompts = [prompt for both in zip(prompts, other, strict=True) for prompt in both]
        with fitting_threads(model):
            rows = generate(model, tokenizer, prompts, [ask.seed for ask in asks], self.decoding)
        return _read(self.reference, asks, rows) if self.reference else rows

    def _other(self, ask: SampleRequest) -> dict[str, RequestedValue]:
        """Return what the prompt requests that guidance draws away from."""
        return opposite(self.policy_file, ask.prompt_values, self.raw) if self.against == OPPOSITE else {}


def _order(asks: Sequence[SampleRequest], prompts: Sequence[Sequence[int]]) -> list[int]:
    """Put like lengths together, so that little is padding, and what asks one prompt side by side."""
    longest: dict[str, int] = {}
    for ask, prompt in zip(asks, prompts, strict=True):
        longest[ask.source.cluster] = max(len(prompt), longest.get(ask.source.cluster, 0))
    return sorted(range(len(asks)), key=lambda i: (longest[asks[i].source.cluster], asks[i].source.cluster, i))


def _read(reference: _Loaded, asks: Sequence[SampleRequest], drawn: Sequence[Drawn]) -> list[Drawn]:
    """Add how likely the reference finds the very tokens that were drawn."""
    prompts = [reference.prompts(ask, {}) for ask in asks]
    with fitting_threads(reference.model):
        logprobs_by_row = logprobs(
            reference.model, [(prompt, row.ids) for prompt, row in zip(prompts, drawn, strict=True)]
        )
    return [
        row._replace(reference=round(math.fsum(numbers), 4), k3=round(k3(row.logprobs, numbers), 4))
        for row, numbers in zip(drawn, logprobs_by_row, strict=True)
    ]


def _reference(policy: _Loaded, folder: Path, settings: SampleSettings) -> _Loaded:
    """Return what the samples are read with: the policy itself where it is named, else another policy or base.

    Raises ConfigError where its token ids mean other tokens.
    """
    name = settings.reference
    if Path(name).resolve() == folder.resolve():
        return policy
    reference_policy = read_policy(Path(name)) if (Path(name) / FILE).is_file() else None
    loaded = _load(name, reference_policy, settings)
    if loaded.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ConfigError(
            f"--reference {name}: its vocabulary is another one than {folder}'s, so token ids mean other tokens;"
            f" name {folder} itself or the base that it was trained from"
        )
    return loaded


def _load(name: str, policy: Policy | None, settings: SampleSettings) -> _Loaded:
    """Load a policy, or a base, which has no card and gets plain prompts.

    Where the settings leave the precision open, weights keep the format that they were saved in.
    """
    model, tokenizer = load_causal(name, DTYPES.get(settings.precision))
    context = policy.context if policy else context_of(model)
    return _Loaded(model.eval(), prompts_for(name, tokenizer, policy, context, settings))
