"""Ask a policy for rewards."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from irlhf import console
from irlhf.errors import ConfigError, DataError
from irlhf.files import STREAM, read_rows
from irlhf.ids import Seen, Shard, parse_shard
from irlhf.journal import Journal, RunCard, journal
from irlhf.policy import Policy, read_policy, read_weights
from irlhf.records import SPLITS, TEST, Content, Example, from_json
from irlhf.registry import did_you_mean, resolve
from irlhf.sample.requests import Request, clamped, read_targets, requests, weighted_requests
from irlhf.targets import Target

ALL = "all"
MOST_GUIDANCE = 20

_POOL = 4  # batches that are sorted by length together; a kill costs at most their drawing
_ROUND = 0  # of an online loop


@dataclass(frozen=True)
class SampleSettings:
    """What is asked, of which prompts, and how tokens are drawn.

    `target` holds NAME=VALUE texts; `weights` asks for a mix instead ("2*helpful + 3*harmless", or a
    rewards.yaml whose weights are taken). `n` samples are drawn for every prompt and every point of a sweep.
    Of prompts with a split only those of `split` are asked; prompts without one always are. `reference` is a
    policy's folder, or a base's folder or hub id, that reads every completion behind a prompt without rewards.
    `guidance` above 1 draws away from what the policy says when it is asked for nothing; 1 is none.
    `shard` ("2/8") leaves all but one part of the prompts to other runs: those whose ids fall into it.
    """

    target: tuple[str, ...] = ()
    weights: str = ""
    n: int = 1
    split: str = TEST
    limit: int = 0  # prompts; 0 is all
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 128
    batch: int = 64
    seed: int = 0
    reference: str = ""
    shard: str = ""
    guidance: float = 1.0  # in [0, MOST_GUIDANCE]

    @property
    def decoding(self) -> dict[str, float]:
        """How tokens are drawn, as every row says it."""
        return {name: getattr(self, name) for name in ("temperature", "top_p", "max_tokens", "guidance")}


@dataclass(frozen=True)
class _Wanted:
    """What the user asks a policy for: single targets, or a mix by weights."""

    policy: Policy
    targets: dict[str, Target]
    weights: dict[str, float]

    def tell(self) -> None:
        """Say what a user may not have meant."""
        if not self.targets and not self.weights:
            console.note(f"no target: asking without rewards (this policy knows {', '.join(self.policy.names)})")
        for text in clamped(self.targets, self.policy):
            console.warn(f"{text} lies beyond the training data; held to the scale's end")

    def size(self, count: int) -> int:
        """Return how many samples of one prompt are asked for."""
        return count * math.prod(len(target.points()) for target in self.targets.values() if target.kind != "data")

    def requests(self, count: int, seed: str) -> Iterator[Request]:
        """Yield what each sample of one prompt is asked for."""
        if self.weights:
            return weighted_requests(self.weights, self.policy, count, seed)
        return requests(self.targets, self.policy, count, seed)


class Ask(NamedTuple):
    """One sample that is to be drawn, all but the completion known."""

    id: str
    seed: int
    source: Example
    asked: dict[str, float]
    target: dict[str, str]

    @property
    def prompt(self) -> Content:
        """The prompt, without rewards."""
        return self.source.prompt


class Drawn(Protocol):
    """What an engine says of one completion."""

    text: str
    finish: str
    tokens: int
    entropy: float
    logprob: float
    reference: float | None


Engine = Callable[[Sequence[Ask], Callable[[int], None]], Sequence[Drawn]]


def sample(
    policy: str | Path, prompts: str | Path, output: str | Path, settings: SampleSettings = SampleSettings()
) -> dict[str, Any]:
    """Write one sample a row and return what was done.

    Every sample has its own seed, made of the run's seed, the prompt's id and the sample's number; so
    neither batches nor an interruption change what is drawn. Raises ConfigError and DataError.
    """
    folder, source, out = Path(policy), Path(prompts), Path(output)
    _check(settings)
    card = read_policy(folder)
    wanted = _Wanted(card, read_targets(settings.target, card), read_weights(settings.weights, card))
    _check_guidance(settings.guidance, wanted)
    inputs = {"policy": folder, "prompts": source}
    if settings.reference and Path(settings.reference).exists():
        inputs["reference"] = Path(settings.reference)
    with journal(out, RunCard("sample", inputs, asdict(settings))) as book:
        if not book.finished:
            total = None
            if source != STREAM:  # a bad row is found before anything is drawn
                total = sum(1 for _ in _read_prompts(source, settings)) * wanted.size(settings.n) - len(book.done)
            wanted.tell()
            different = _counted(_read_prompts(source, settings), book)
            todo = (one for one in _asks(different, wanted, settings) if one.id not in book.done)
            with console.progress("sampling", total) as advance:
                for example in _draw(todo, folder, card, settings, advance):
                    book.write(example)
    return book.summary()


def _check(settings: SampleSettings) -> None:
    if settings.split not in (*SPLITS, ALL):
        raise ConfigError(f"unknown split '{settings.split}'{did_you_mean(settings.split, (*SPLITS, ALL))}")
    if settings.target and settings.weights:
        raise ConfigError("--target and --weights each say what to ask for; give one of them")
    parse_shard(settings.shard)
    if not 0 < settings.top_p <= 1:
        raise ConfigError(f"--top-p {settings.top_p}: write a share above 0 and up to 1")
    if settings.reference and (settings.temperature, settings.top_p) != (1, 1):
        raise ConfigError(
            "--reference needs samples as the policy itself draws them: leave --temperature and --top-p at 1"
        )


def _check_guidance(guidance: float, wanted: _Wanted) -> None:
    """Raise ConfigError where guidance is no number for it, or has nothing to draw away from."""
    if not 0 <= guidance <= MOST_GUIDANCE:
        raise ConfigError(f"--guidance {guidance}: write a number from 0 to {MOST_GUIDANCE}; 1 is none")
    if guidance == 1:
        return
    why = "this policy's prompts hold no reward" if wanted.policy.blind else "nothing is asked for"
    if wanted.policy.blind or not (wanted.targets or wanted.weights):
        raise ConfigError(f"--guidance {guidance:g} parts asking from not asking, and {why}; leave it at 1")


def _read_prompts(source: Path, settings: SampleSettings) -> Iterator[Example]:
    """Yield each different prompt of the shard once, in the order of the file, which is read to its end."""
    shard = parse_shard(settings.shard)
    seen = Seen()
    other: set[str] = set()
    stem = "stdin" if source == STREAM else source.stem
    for where, row in read_rows(source):
        named = {**row, "id": row.get("id") or f"{stem}-{where.line - 1}"}
        example = from_json(named, where, completion=False)
        if example.split and settings.split not in (ALL, example.split):
            other.add(example.split)
        elif (len(seen) < settings.limit or not settings.limit) and _is_new(example, seen, shard):
            yield example
    if not len(seen):
        there = ", ".join(sorted(other))
        raise DataError(f"{source}: no prompt of the {settings.split} split; ask for --split {there} or all")


def _is_new(prompt: Example, seen: Seen, shard: Shard) -> bool:
    """Return whether a prompt comes for the first time and belongs to the shard."""
    return seen.add(prompt.cluster) and shard.holds(prompt.cluster)


def _counted(prompts: Iterable[Example], book: Journal) -> Iterator[Example]:
    for prompt in prompts:
        book.counts["prompts"] += 1
        yield prompt


def _asks(prompts: Iterable[Example], wanted: _Wanted, settings: SampleSettings) -> Iterator[Ask]:
    for prompt in prompts:
        for k, request in enumerate(wanted.requests(settings.n, f"{settings.seed}/{prompt.cluster}")):
            identifier = f"{prompt.cluster}/{wanted.policy.digest}/{_ROUND}/{k}"
            yield Ask(identifier, _seed(settings.seed, prompt.cluster, k), prompt, request.asked, request.target)


def _seed(run: int, prompt: str, k: int) -> int:
    """Return a sample's own seed: the same on every machine, in every batch, after every interruption."""
    return int.from_bytes(hashlib.sha256(f"{run}/{prompt}/{k}".encode()).digest()[:6])


def _draw(
    todo: Iterator[Ask], folder: Path, policy: Policy, settings: SampleSettings, advance: Callable[[int], None]
) -> Iterator[Example]:
    engine: Engine | None = None
    while pool := list(islice(todo, _POOL * settings.batch)):
        # Made when the first row needs it: a run that has nothing left to draw loads no model.
        engine = engine or resolve("irlhf.sample.local:LocalEngine")(folder, policy, settings)
        for ask, drawn in zip(pool, engine(pool, advance), strict=True):
            yield Example(
                id=ask.id,
                prompt=ask.prompt,
                completion=drawn.text,
                group=ask.source.cluster,
                split=ask.source.split,
                source=ask.source.source,
                target=ask.target,
                asked={name: round(number, 6) for name, number in ask.asked.items()},
                finish=drawn.finish,
                tokens=drawn.tokens,
                entropy=drawn.entropy,
                logprob=drawn.logprob,
                reference=drawn.reference,
                policy=policy.digest,
                seed=ask.seed,
                decoding=settings.decoding,
            )
