"""Sample from a local policy or base model, and compute the logprobs under a reference without rewards."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irlhf.core.entropy_bounds import k3
from irlhf.core.errors import ConfigError
from irlhf.models.generation import Drawn, generate
from irlhf.models.loading import context_of, end_tokens, fitting_threads, load_causal
from irlhf.models.precision import DTYPES
from irlhf.models.token_logprobs import logprobs
from irlhf.models.token_sampler import Decoding
from irlhf.openai_api.server_logprobs import FailedCompletion
from irlhf.policy.policy_file import FILE, Policy, read_policy
from irlhf.policy.templates import RequestedValue
from irlhf.sampling.prompts import Prompts, prompts_for
from irlhf.sampling.settings import OPPOSITE, SampleSettings
from irlhf.sampling.target_resolution import opposite
from irlhf.sampling.types import SampleRequest


@dataclass(frozen=True)
class _Loaded:
    """A model in this process and the encoder of its prompts."""

    model: Any
    prompts: Prompts

    @property
    def tokenizer(self) -> Any:
        return self.prompts.chat.tokenizer


class LocalBackend:
    """A policy or a base model, loaded into this process."""

    def __init__(self, folder: Path, policy: Policy, settings: SampleSettings) -> None:
        self.policy_file, self.settings = policy, settings
        self.policy = _load(str(folder), policy, settings)
        self.reference = _reference(self.policy, folder, settings) if settings.reference else None
        self.decoding = Decoding(settings.temperature, settings.top_p, settings.max_tokens, settings.guidance)

    def __call__(
        self, requests: Sequence[SampleRequest], advance: Callable[[int], None]
    ) -> list[Drawn | FailedCompletion]:
        """Return one completion per request, in order; `advance` is called after each batch."""
        encoded = [self.policy.prompts.encoded(request) for request in requests]
        drawn: dict[int, Drawn | FailedCompletion] = {
            i: prompt for i, prompt in enumerate(encoded) if isinstance(prompt, FailedCompletion)
        }
        advance(len(drawn))
        prompts = {i: prompt for i, prompt in enumerate(encoded) if not isinstance(prompt, FailedCompletion)}
        answer = self.policy.prompts.chat.turn_format.answer
        order = _order(requests, {i: len(prompt.ids) for i, prompt in prompts.items()})
        for start in range(0, len(order), self.settings.batch):
            batch = order[start : start + self.settings.batch]
            rows = self._draw([requests[i] for i in batch], [prompts[i].ids for i in batch])
            for i, row in zip(batch, rows, strict=True):
                drawn[i] = row._replace(text=answer(row.text), notes=prompts[i].notes)
            advance(len(batch))
        return [drawn[i] for i in range(len(requests))]

    def _draw(self, requests: Sequence[SampleRequest], prompts: Sequence[Sequence[int]]) -> list[Drawn]:
        model, tokenizer = self.policy.model, self.policy.tokenizer
        if self.decoding.sides > 1:  # every prompt is followed by the second prompt of guidance
            others: list[Mapping[str, RequestedValue]] = [{} for _ in requests]
            if self.settings.against == OPPOSITE:
                others = [opposite(self.policy_file, each.prompt_values, self.settings.raw) for each in requests]
            second = [self.policy.prompts(each, other) for each, other in zip(requests, others, strict=True)]
            prompts = [prompt for both in zip(prompts, second, strict=True) for prompt in both]
        with fitting_threads(model):
            rows = generate(model, tokenizer, prompts, [request.seed for request in requests], self.decoding)
        return _read(self.reference, requests, rows) if self.reference else rows


def _order(requests: Sequence[SampleRequest], lengths: Mapping[int, int]) -> list[int]:
    """Return an order by prompt length, to reduce padding, with the requests of one prompt side by side.

    `lengths` are those of the prompts in tokens, by the numbers of the requests to order.
    """
    longest: dict[str, int] = {}
    for i, length in lengths.items():
        cluster = requests[i].source.cluster
        longest[cluster] = max(length, longest.get(cluster, 0))
    return sorted(lengths, key=lambda i: (longest[requests[i].source.cluster], requests[i].source.cluster, i))


def _read(reference: _Loaded, requests: Sequence[SampleRequest], drawn: Sequence[Drawn]) -> list[Drawn]:
    """Add the logprob of the drawn tokens under the reference, and the k3 estimate."""
    prompts = [reference.prompts(request, {}) for request in requests]
    with fitting_threads(reference.model):
        logprobs_by_row = logprobs(
            reference.model, [(prompt, row.ids) for prompt, row in zip(prompts, drawn, strict=True)]
        )
    return [
        row._replace(reference=round(math.fsum(numbers), 4), k3=round(k3(row.logprobs, numbers), 4))
        for row, numbers in zip(drawn, logprobs_by_row, strict=True)
    ]


def _reference(policy: _Loaded, folder: Path, settings: SampleSettings) -> _Loaded:
    """Return the reference model: the policy itself, if it is named, else another policy or base.

    Raises ConfigError if its vocabulary differs.
    """
    name = settings.reference
    if Path(name).resolve() == folder.resolve():
        return policy
    reference_policy = read_policy(Path(name)) if (Path(name) / FILE).is_file() else None
    loaded = _load(name, reference_policy, settings)
    if loaded.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ConfigError(
            f"--reference {name}: its vocabulary differs from that of {folder};"
            f" use {folder} itself or the base that it was trained from"
        )
    return loaded


def _load(name: str, policy: Policy | None, settings: SampleSettings) -> _Loaded:
    """Return a loaded policy or, if `policy` is None, a base model with plain prompts.

    With automatic precision, the weights keep the format in which they are stored.
    """
    model, tokenizer = load_causal(name, DTYPES.get(settings.precision))
    context = policy.context if policy else context_of(model)
    prompts = prompts_for(name, tokenizer, policy, context, settings)
    model.generation_config.eos_token_id = end_tokens(model, tokenizer, prompts.chat.turn_format)
    return _Loaded(model.eval(), prompts)
