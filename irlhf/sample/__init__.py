"""Draw samples from a policy that is asked for rewards, or from a base model as it is."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from irlhf import console
from irlhf.engines.pools import LOCAL, Engine, answered
from irlhf.engines.told import Lost
from irlhf.errors import ConfigError, DataError
from irlhf.files import STREAM, holds_texts, read_rows, read_texts
from irlhf.ids import Shard, add_new, fingerprint, parse_shard
from irlhf.journal import Journal, RunCard, journal, recorded_setting
from irlhf.policy import Policy, read_policy, read_weights
from irlhf.records import SPLITS, TEST, TRAIN, VALIDATION, Content, Example, Where, as_text, from_json
from irlhf.registry import did_you_mean
from irlhf.sample import places
from irlhf.sample.base import is_policy, read_base
from irlhf.sample.opposite import AGAINST, NOTHING, OPPOSITE
from irlhf.sample.requests import BEST, PICKS, Wanted, number_of, read_targets
from irlhf.spoof import ESCAPED, REFUSED, SPOOFS
from irlhf.templates import Wish
from irlhf.training.settings import STEERING
from irlhf.training.steering_report import ignored, ignores

ALL = "all"
BASE_SPLITS = f"{TRAIN},{VALIDATION}"  # what a policy can be trained on
MOST_GUIDANCE = 20

_ROUND = 0  # of an online loop
_OPPOSITE_KEY = "against_opposite"  # in `decoding`, whose values are numbers: 1 where guidance drew so
# What a row says of what was drawn, beside the text.
_TOLD = ("finish", "tokens", "entropy", "entropy_low", "entropy_high", "logprob", "censored", "reference", "k3")


@dataclass(frozen=True)
class SampleSettings:
    """What is asked, of which prompts, and how tokens are drawn.

    `target` holds NAME=VALUE texts; `weights` asks for a mix of other rewards ("2*helpful + 3*harmless", or a
    rewards.yaml whose weights are taken), within the ranges that the targets leave. `pick` says how a mix finds its
    targets: from the `best` training rows, from the one row at the `front`, or as the request that `achieved` most
    on validation prompts; empty, as was measured to be best. With `raw` numbers stand in the prompt as they were
    written, neither held to the scale nor put through what was measured.

    `n` samples are drawn for every prompt and every point of a sweep. Of prompts with a split only those of `split`
    are asked, one or several parted by commas; prompts without one always are. Left open it is the test split, and
    for a base, whose samples a policy is trained on, the training and validation splits. `reference` is a policy's
    folder, or a base's folder or hub id, that reads every completion behind a prompt without rewards. `guidance`
    above 1 draws away from what the policy says when it is asked for nothing (`against` is `none`), or for the
    opposite (`opposite`, see irlhf/sample/opposite.py); 1 is none. `precision` is the format of the weights: `bf16`,
    `fp32`, or `auto`, which is what an interrupted run had recorded, else what is faster here.

    `shard` ("2/8") leaves all but one part of the prompts to other runs: those whose ids fall into it. `spoof` says
    what becomes of user text that looks like a reward: it is read as text (`escape`), its prompt is set aside
    (`refuse`), or it is let through (`allow`).

    With `base_url` no weights are loaded: a server that holds the policy under `served_name` (left out: the one model
    that it holds) draws, at most `concurrency` samples at a time; its key is in the environment variable
    `api_key_env`. It is asked with token ids, or with messages (`api` is `completions` or `chat`). A policy whose
    weights a host keeps is always drawn by a server: by that host in a chat, where nothing else is said.
    """

    target: tuple[str, ...] = ()
    weights: str = ""
    n: int = 1
    split: str = ""
    limit: int = 0  # prompts; 0 is all
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 128
    batch: int = 64
    seed: int = 0
    reference: str = ""
    shard: str = ""
    guidance: float = 1.0  # in [0, MOST_GUIDANCE]
    pick: str = ""
    raw: bool = False
    spoof: str = ESCAPED
    base_url: str = ""  # up to and with /v1
    served_name: str = ""
    api_key_env: str = ""  # OPENAI_API_KEY
    concurrency: int = 16
    api: str = ""
    precision: str = "auto"
    against: str = NOTHING

    @property
    def decoding(self) -> dict[str, float]:
        """How tokens are drawn, as every row says it."""
        drawn = {name: getattr(self, name) for name in ("temperature", "top_p", "max_tokens", "guidance")}
        return drawn | ({_OPPOSITE_KEY: 1.0} if self.against == OPPOSITE else {})


class Ask(NamedTuple):
    """One sample that is to be drawn, all but the completion known."""

    id: str
    seed: int
    source: Example
    asked: dict[str, Wish]
    target: dict[str, str]
    wanted: dict[str, float]

    @property
    def prompt(self) -> Content:
        """The prompt, without rewards."""
        return self.source.prompt


class Drawn(Protocol):
    """What an engine says of one completion; None is what it does not know."""

    text: str
    finish: str
    tokens: int | None
    entropy: float | None
    entropy_low: float | None
    entropy_high: float | None
    logprob: float | None
    censored: int | None
    reference: float | None
    k3: float | None


def sample(
    policy: str | Path,
    prompts: str | Path,
    output: str | Path,
    settings: SampleSettings = SampleSettings(),
    engine: Engine = LOCAL,
) -> dict[str, Any]:
    """Write one sample a row and return what was done.

    `policy` is the folder of a policy, or the folder or hub id of a base model. A base's prompts hold no rewards, so
    its rows have no `target`, and can be scored and trained on.

    Every sample has its own seed, made of the run's seed, the prompt's id and the sample's number. Batches are
    formed by position in the input, so that an interruption changes no row. Raises ConfigError and DataError.
    """
    folder, source, out = Path(policy), Path(prompts), Path(output)
    _check(settings)
    based = not is_policy(folder)
    card = read_base(str(folder), settings) if based else read_policy(folder)
    settings = replace(settings, split=settings.split or (BASE_SPLITS if based else TEST))
    settings = places.reached(settings, card, engine)
    wanted = _wanted(card, settings)
    _check_guidance(settings, wanted)
    settings = _with_precision(settings, folder, out)
    with journal(out, _run_card(folder, card, source, settings)) as book:
        if not book.finished:
            total = None
            if source != STREAM:  # a bad row is found before anything is drawn
                total = places.remaining(_total(source, wanted, settings, card), len(book.done), settings)
            _tell(wanted, settings)
            _warn_of_ignored(card, wanted)
            different = _counted(_read_prompts(source, settings), wanted, settings, book)
            asks = _asks(different, wanted, settings)
            spent: Counter[str] = Counter()
            work, hands = places.hands((folder, card, settings), engine, spent)
            with (
                console.progress("sampling", total) as advance,
                closing(answered(places.pools(asks, settings, book.done), work, hands, advance)) as pools,
            ):
                for ask, one in (pair for pool in pools for pair in zip(*pool, strict=True)):
                    if fingerprint(ask.id) not in book.done:
                        _settle(ask, one, _sampled(ask, card.digest, settings.decoding), book)
            book.counts.update(places.account(spent))
    return book.summary()


def _warn_of_ignored(policy: Policy, wanted: Wanted) -> None:
    """Warn of requested rewards that the policy was measured to ignore when it was trained."""
    requested = [name for name in policy.names if name in wanted.targets or name in wanted.weights]
    none = ignored(policy.training.get(STEERING, {}), policy.names)
    if listed := [name for name in none if name in requested]:
        console.warn(ignores(listed))


def _check(settings: SampleSettings) -> None:
    for split in settings.split.split(",") if settings.split else ():
        if split not in (*SPLITS, ALL):
            raise ConfigError(f"unknown split '{split}'{did_you_mean(split, (*SPLITS, ALL))}")
    for flag, given, known in (
        ("--pick", settings.pick or BEST, PICKS),
        ("--spoof", settings.spoof, SPOOFS),
        ("--against", settings.against, AGAINST),
    ):
        if given not in known:
            raise ConfigError(f"unknown {flag} '{given}'{did_you_mean(given, known)}")
    if settings.pick and not settings.weights:
        raise ConfigError("--pick says how a mix finds its targets; name the mix with --weights")
    parse_shard(settings.shard)
    if not 0 < settings.top_p <= 1:
        raise ConfigError(f"--top-p {settings.top_p}: write a share above 0 and up to 1")
    if settings.reference and (settings.temperature, settings.top_p) != (1, 1):
        raise ConfigError(
            "--reference needs samples as the policy itself draws them: leave --temperature and --top-p at 1"
        )


def _deciding(settings: SampleSettings) -> dict[str, Any]:
    """Return the settings that decide what the rows are."""
    return {name: value for name, value in asdict(settings).items() if name not in places.MEANS}


def _run_card(folder: Path, card: Policy, source: Path, settings: SampleSettings) -> RunCard:
    """Return what a run makes. A base on the hub is no file here; its name and commit are a setting."""
    inputs = {"policy": folder, "prompts": source}
    deciding = _deciding(settings)
    if not folder.exists():
        del inputs["policy"]
        deciding["base"] = f"{folder}@{card.digest}"
    if settings.reference and Path(settings.reference).exists():
        inputs["reference"] = Path(settings.reference)
    return RunCard("sample", inputs, deciding)


def _with_precision(settings: SampleSettings, folder: Path, out: Path) -> SampleSettings:
    """Return the settings with the format of the weights: as asked, as recorded, or as is faster here."""
    if settings.base_url:
        return settings
    from irlhf.engines.local import device
    from irlhf.models.description import describe
    from irlhf.models.precision import AUTO, BF16, DTYPES, check_precision, precision_name, resolve_precision

    check_precision(settings.precision)
    if settings.precision != AUTO:
        return settings
    recorded = recorded_setting(out, "precision")
    if recorded not in DTYPES:
        model = describe(str(folder))
        recorded = precision_name(resolve_precision(AUTO, model.parameters, model.width, device()))
        if recorded == BF16:
            console.note("weights are bfloat16, which is faster here; --precision fp32 computes in float32")
    return replace(settings, precision=recorded)


def _total(source: Path, wanted: Wanted, settings: SampleSettings, policy: Policy) -> int:
    """Return how many samples are to be drawn, and say what that asks of a host."""
    each = wanted.size(settings.n)
    sizes = [len(as_text(one.prompt)) for one in _read_prompts(source, settings)]
    if policy.hosted:
        places.tell_size(len(sizes) * each, sum(sizes) * each, settings)
    return len(sizes) * each


def _wanted(policy: Policy, settings: SampleSettings) -> Wanted:
    """Return what the user wants, checked against what the policy knows. Raises ConfigError."""
    targets, weights = read_targets(settings.target, policy), read_weights(settings.weights, policy)
    for name in targets.keys() & weights.keys():
        raise ConfigError(f"{name} has a target and a weight; give it one of them")
    measured = policy.calibration
    fits = measured is not None and not settings.raw and _drawn_alike(measured.decoding, settings.decoding)
    return Wanted(policy, targets, weights, settings.pick, measured.reach if measured and fits else {}, settings.raw)


def _drawn_alike(measured: Mapping[str, float], now: Mapping[str, float]) -> bool:
    same_guidance = not measured or measured.get(_OPPOSITE_KEY) == now.get(_OPPOSITE_KEY)
    return same_guidance and all(now.get(name) == number for name, number in measured.items())


def _tell(wanted: Wanted, settings: SampleSettings) -> None:
    """Say what a user may not have meant."""
    policy, measured = wanted.policy, wanted.policy.calibration
    if policy.names and not wanted.targets and not wanted.weights:
        console.note(f"no target: asking without rewards (this policy knows {', '.join(policy.names)})")
    if measured and not settings.raw and not _drawn_alike(measured.decoding, settings.decoding):
        told = ", ".join(f"{name} {number:g}" for name, number in measured.decoding.items())
        console.warn(f"what this policy reaches was measured with {told}; drawn otherwise, it is left out")
    for text in wanted.beyond():
        console.warn(text)
    for text in wanted.unseen():
        console.note(text)


def _check_guidance(settings: SampleSettings, wanted: Wanted) -> None:
    """Raise ConfigError where guidance is no number for it, or has nothing to draw away from."""
    guidance = settings.guidance
    if not 0 <= guidance <= MOST_GUIDANCE:
        raise ConfigError(f"--guidance {guidance}: write a number from 0 to {MOST_GUIDANCE}; 1 is none")
    if guidance == 1 and settings.against != NOTHING:
        raise ConfigError(f"--against {settings.against} needs --guidance above 1, such as --guidance 1.5")
    if guidance == 1:
        return
    why = "this policy's prompts hold no reward" if wanted.policy.blind else "nothing is asked for"
    if wanted.policy.blind or not (wanted.targets or wanted.weights):
        raise ConfigError(f"--guidance {guidance:g} parts asking from not asking, and {why}; leave it at 1")


def _read_prompts(source: Path, settings: SampleSettings) -> Iterator[Example]:
    """Yield each different prompt of the shard once, in the order of the file, which is read to its end."""
    shard = parse_shard(settings.shard)
    splits = settings.split.split(",")
    seen: set[int] = set()
    other: set[str] = set()
    stem = "stdin" if source == STREAM else source.stem
    for where, row in _rows(source):
        named = {**row, "id": row.get("id") or f"{stem}-{where.line - 1}"}
        example = from_json(named, where, completion=False)
        if example.split and ALL not in splits and example.split not in splits:
            other.add(example.split)
        elif (len(seen) < settings.limit or not settings.limit) and _is_new(example, seen, shard):
            yield example
    if not seen:
        there = ", ".join(sorted(other))
        raise DataError(f"{source}: no prompt of the {settings.split} split; ask for --split {there} or all")


def _rows(source: Path) -> Iterator[tuple[Where, dict[str, Any]]]:
    """Yield rows with a prompt; of a text file each line is one."""
    if holds_texts(source):
        return ((where, {"prompt": text}) for where, text in read_texts(source))
    return read_rows(source)


def _is_new(prompt: Example, seen: set[int], shard: Shard) -> bool:
    """Return whether a prompt comes for the first time and belongs to the shard."""
    return add_new(seen, prompt.cluster) and shard.holds(prompt.cluster)


def _counted(prompts: Iterable[Example], wanted: Wanted, settings: SampleSettings, book: Journal) -> Iterator[Example]:
    """Count the prompts, and set aside those whose text looks like a reward where such are refused."""
    template, names = wanted.policy.template, wanted.policy.names
    for prompt in prompts:
        book.counts["prompts"] += 1
        if settings.spoof == REFUSED and template.forged(prompt.prompt, names):
            book.reject(prompt.id, "text in the prompt looks like a reward line", prompt.to_json())
        else:
            yield prompt


def _asks(prompts: Iterable[Example], wanted: Wanted, settings: SampleSettings) -> Iterator[Ask]:
    for prompt in prompts:
        for k, request in enumerate(wanted.requests(settings.n, f"{settings.seed}/{prompt.cluster}")):
            identifier = f"{prompt.cluster}/{wanted.policy.digest}/{_ROUND}/{k}"
            seed = _seed(settings.seed, prompt.cluster, k)
            yield Ask(identifier, seed, prompt, request.asked, request.target, request.wanted)


def _seed(run: int, prompt: str, k: int) -> int:
    """Return a sample's own seed: the same on every machine, in every batch, after every interruption."""
    return int.from_bytes(hashlib.sha256(f"{run}/{prompt}/{k}".encode()).digest()[:6])


def _settle(ask: Ask, drawn: Drawn | Lost, row: Example, book: Journal) -> None:
    """Write the row with what was drawn, or set it aside where nothing was."""
    if isinstance(drawn, Lost):
        book.reject(ask.id, drawn.reason, row.to_json())
        return
    told = {name: getattr(drawn, name) for name in _TOLD}
    book.write(replace(row, completion=drawn.text, **told))


def _sampled(ask: Ask, policy: str, decoding: Mapping[str, float]) -> Example:
    """Return all of a row but what is drawn."""
    return Example(
        id=ask.id,
        prompt=ask.prompt,
        group=ask.source.cluster,
        split=ask.source.split,
        source=ask.source.source,
        target=ask.target,
        asked={name: round(number_of(wish), 6) for name, wish in ask.asked.items()},
        wanted={name: round(number, 6) for name, number in ask.wanted.items()},
        policy=policy,
        seed=ask.seed,
        decoding=decoding,
    )
