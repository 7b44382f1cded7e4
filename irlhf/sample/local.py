"""Draw from a policy's own weights, and read what was drawn with a reference that is asked for nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irlhf.engines.chat import Chat
from irlhf.engines.dice import Decoding
from irlhf.engines.generate import Drawn, generate
from irlhf.engines.likelihood import logprobs
from irlhf.engines.local import context_of, fitting_threads, load_causal
from irlhf.errors import ConfigError, DataError
from irlhf.policy import FILE, Policy, read_policy
from irlhf.spoof import ALLOWED
from irlhf.templates import PLAIN, Wish, find_template

if TYPE_CHECKING:
    from irlhf.sample import Ask, SampleSettings


@dataclass(frozen=True)
class _Loaded:
    """A model in this process, and how prompts are put to it."""

    model: Any
    chat: Chat
    room: int  # tokens that a prompt may fill

    def prompt(self, ask: "Ask", asked: Mapping[str, Wish]) -> list[int]:
        """Return the ask's prompt as token ids, with these rewards in it."""
        try:
            return self.chat.prompt(ask.prompt, asked, self.room).ids
        except DataError as error:
            raise DataError(f"{ask.id}: {error}") from error


class LocalEngine:
    """A policy loaded into this process."""

    def __init__(self, folder: Path, policy: Policy, settings: "SampleSettings") -> None:
        self.policy = _load(str(folder), policy, settings)
        self.reference = _reference(self.policy, folder, settings) if settings.reference else None
        self.batch = settings.batch
        self.decoding = Decoding(settings.temperature, settings.top_p, settings.max_tokens, settings.guidance)

    def __call__(self, asks: Sequence["Ask"], advance: Callable[[int], None]) -> list[Drawn]:
        """Return one completion for each ask, in their order; `advance` counts them as they come."""
        prompts = [self.policy.prompt(ask, ask.asked) for ask in asks]
        order = _order(asks, prompts)
        drawn: dict[int, Drawn] = {}
        for start in range(0, len(order), self.batch):
            batch = order[start : start + self.batch]
            found = self._draw([asks[i] for i in batch], [prompts[i] for i in batch])
            drawn.update(zip(batch, found, strict=True))
            advance(len(batch))
        return [drawn[i] for i in range(len(asks))]

    def _draw(self, asks: Sequence["Ask"], prompts: Sequence[Sequence[int]]) -> list[Drawn]:
        model, tokenizer = self.policy.model, self.policy.chat.tokenizer
        if self.decoding.sides > 1:
            unasked = [self.policy.prompt(ask, {}) for ask in asks]
            prompts = [one for both in zip(prompts, unasked, strict=True) for one in both]
        with fitting_threads(model):
            found = generate(model, tokenizer, prompts, [ask.seed for ask in asks], self.decoding)
        return _read(self.reference, asks, found) if self.reference else found


def _order(asks: Sequence["Ask"], prompts: Sequence[Sequence[int]]) -> list[int]:
    """Put like lengths together, so that little is padding, and what asks one prompt side by side."""
    longest: dict[str, int] = {}
    for ask, prompt in zip(asks, prompts, strict=True):
        longest[ask.source.cluster] = max(len(prompt), longest.get(ask.source.cluster, 0))
    return sorted(range(len(asks)), key=lambda i: (longest[asks[i].source.cluster], asks[i].source.cluster, i))


def _read(reference: _Loaded, asks: Sequence["Ask"], drawn: Sequence[Drawn]) -> list[Drawn]:
    """Add how likely the reference finds the very tokens that were drawn."""
    prompts = [reference.prompt(ask, {}) for ask in asks]
    with fitting_threads(reference.model):
        found = logprobs(reference.model, [(prompt, one.ids) for prompt, one in zip(prompts, drawn, strict=True)])
    return [one._replace(reference=round(number, 4)) for one, number in zip(drawn, found, strict=True)]


def _reference(policy: _Loaded, folder: Path, settings: "SampleSettings") -> _Loaded:
    """Return what the samples are read with: the policy itself where it is named, else another policy or base.

    Raises ConfigError where its token ids mean other tokens.
    """
    name = settings.reference
    if Path(name).resolve() == folder.resolve():
        return policy
    card = read_policy(Path(name)) if (Path(name) / FILE).is_file() else None
    loaded = _load(name, card, settings)
    if loaded.chat.tokenizer.get_vocab() != policy.chat.tokenizer.get_vocab():
        raise ConfigError(
            f"--reference {name}: its vocabulary is another one than {folder}'s, so token ids mean other tokens;"
            f" name {folder} itself or the base that it was trained from"
        )
    return loaded


def _load(name: str, policy: Policy | None, settings: "SampleSettings") -> _Loaded:
    """Load a policy, or a base, which has no card and gets plain prompts."""
    model, tokenizer = load_causal(name)
    template, names = (policy.template, policy.names) if policy else (find_template(PLAIN), ())
    context = policy.context if policy else context_of(model)
    room = context - settings.max_tokens
    if room <= 0:
        told = f"--max-tokens {settings.max_tokens} leaves no room in a context of {context} tokens"
        raise ConfigError(f"{name}: {told}")
    return _Loaded(model.eval(), Chat(tokenizer, template, names, settings.spoof == ALLOWED), room)
