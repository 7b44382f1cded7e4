"""Draw samples from a policy that is asked for rewards, or from a base model as it is."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import SPLITS, TEST, Example, Where, as_text, from_json
from irlhf.core.hashing import Shard, add_new, fingerprint, parse_shard
from irlhf.core.registry import did_you_mean
from irlhf.executors.base import LOCAL, Engine, run_pools
from irlhf.io.files import STREAM, holds_texts, read_rows, read_texts
from irlhf.io.resumable import ResumableWriter, RunManifest, recorded_setting, resumable_output
from irlhf.openai_api.server_logprobs import FailedCompletion
from irlhf.policy.escaping import REFUSED, SPOOFS
from irlhf.policy.policy_file import Policy, read_policy, read_weights
from irlhf.policy.steering_report import STEERING, ignored, ignores
from irlhf.sampling import backends
from irlhf.sampling.base_model import is_policy, read_base
from irlhf.sampling.settings import AGAINST, ALL, BASE_SPLITS, MOST_GUIDANCE, NOTHING, OPPOSITE_KEY, SampleSettings
from irlhf.sampling.target_resolution import BEST, PICKS, TargetSpec, number_of, read_targets
from irlhf.sampling.types import Generation, SampleRequest

_ROUND = 0  # of an online loop
# What a row says of what was drawn, beside the text.
_GENERATION_FIELDS = (
    "finish",
    "tokens",
    "entropy",
    "entropy_low",
    "entropy_high",
    "logprob",
    "censored",
    "reference",
    "k3",
)


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
    source_policy = read_base(str(folder), settings) if based else read_policy(folder)
    settings = replace(settings, split=settings.split or (BASE_SPLITS if based else TEST))
    settings = backends.reached(settings, source_policy, engine)
    wanted = _wanted(source_policy, settings)
    _check_guidance(settings, wanted)
    settings = _with_precision(settings, folder, out)
    with resumable_output(out, _manifest(folder, source_policy, source, settings)) as book:
        if not book.finished:
            total = None
            if source != STREAM:  # a bad row is found before anything is drawn
                total = backends.remaining(_total(source, wanted, settings, source_policy), len(book.done), settings)
            _tell(wanted, settings)
            _warn_of_ignored(source_policy, wanted)
            different = _counted(_read_prompts(source, settings), wanted, settings, book)
            asks = _asks(different, wanted, settings)
            spent: Counter[str] = Counter()
            work, executor = backends.task_and_executor((folder, source_policy, settings), engine, spent)
            with (
                console.progress("sampling", total) as advance,
                closing(run_pools(backends.pools(asks, settings, book.done), work, executor, advance)) as pools,
            ):
                for ask, generation in (pair for pool in pools for pair in zip(*pool, strict=True)):
                    if fingerprint(ask.id) not in book.done:
                        _settle(ask, generation, _sampled(ask, source_policy.digest, settings.decoding), book)
            book.counts.update(backends.account(spent))
    return book.summary()


def _warn_of_ignored(policy: Policy, wanted: TargetSpec) -> None:
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
        ("--mix-from", settings.pick or BEST, PICKS),
        ("--injection", settings.spoof, SPOOFS),
        ("--against", settings.against, AGAINST),
    ):
        if given not in known:
            raise ConfigError(f"unknown {flag} '{given}'{did_you_mean(given, known)}")
    if settings.pick and not settings.weights:
        raise ConfigError("--mix-from says how a mix finds its targets; name the mix with --weights")
    parse_shard(settings.shard)
    if not 0 < settings.top_p <= 1:
        raise ConfigError(f"--top-p {settings.top_p}: write a share above 0 and up to 1")
    if settings.reference and (settings.temperature, settings.top_p) != (1, 1):
        raise ConfigError(
            "--reference needs samples as the policy itself draws them: leave --temperature and --top-p at 1"
        )


def _deciding(settings: SampleSettings) -> dict[str, Any]:
    """Return the settings that decide what the rows are."""
    return {name: value for name, value in asdict(settings).items() if name not in backends.MEANS}


def _manifest(folder: Path, policy: Policy, source: Path, settings: SampleSettings) -> RunManifest:
    """Return what a run makes. A base on the hub is no file here; its name and commit are a setting."""
    inputs = {"policy": folder, "prompts": source}
    deciding = _deciding(settings)
    if not folder.exists():
        del inputs["policy"]
        deciding["base"] = f"{folder}@{policy.digest}"
    if settings.reference and Path(settings.reference).exists():
        inputs["reference"] = Path(settings.reference)
    return RunManifest("sample", inputs, deciding)


def _with_precision(settings: SampleSettings, folder: Path, out: Path) -> SampleSettings:
    """Return the settings with the format of the weights: as asked, as recorded, or as is faster here."""
    if settings.base_url:
        return settings
    from irlhf.models.description import describe
    from irlhf.models.loading import device
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


def _total(source: Path, wanted: TargetSpec, settings: SampleSettings, policy: Policy) -> int:
    """Return how many samples are to be drawn, and say what that asks of a host."""
    each = wanted.size(settings.n)
    sizes = [len(as_text(prompt.prompt)) for prompt in _read_prompts(source, settings)]
    if policy.hosted:
        backends.tell_size(len(sizes) * each, sum(sizes) * each, settings)
    return len(sizes) * each


def _wanted(policy: Policy, settings: SampleSettings) -> TargetSpec:
    """Return what the user wants, checked against what the policy knows. Raises ConfigError."""
    targets, weights = read_targets(settings.target, policy), read_weights(settings.weights, policy)
    for name in targets.keys() & weights.keys():
        raise ConfigError(f"{name} has a target and a weight; give it one of them")
    measured = policy.calibration
    fits = measured is not None and not settings.raw and _drawn_alike(measured.decoding, settings.decoding)
    return TargetSpec(
        policy, targets, weights, settings.pick, measured.reach if measured and fits else {}, settings.raw
    )


def _drawn_alike(measured: Mapping[str, float], now: Mapping[str, float]) -> bool:
    same_guidance = not measured or measured.get(OPPOSITE_KEY) == now.get(OPPOSITE_KEY)
    return same_guidance and all(now.get(name) == number for name, number in measured.items())


def _tell(wanted: TargetSpec, settings: SampleSettings) -> None:
    """Say what a user may not have meant."""
    policy, measured = wanted.policy, wanted.policy.calibration
    if policy.names and not wanted.targets and not wanted.weights:
        console.note(f"no target: asking without rewards (this policy knows {', '.join(policy.names)})")
    if measured and not settings.raw and not _drawn_alike(measured.decoding, settings.decoding):
        decoding = ", ".join(f"{name} {number:g}" for name, number in measured.decoding.items())
        console.warn(f"what this policy reaches was measured with {decoding}; drawn otherwise, it is left out")
    for text in wanted.beyond():
        console.warn(text)
    for text in wanted.unseen():
        console.note(text)


def _check_guidance(settings: SampleSettings, wanted: TargetSpec) -> None:
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


def _counted(
    prompts: Iterable[Example], wanted: TargetSpec, settings: SampleSettings, book: ResumableWriter
) -> Iterator[Example]:
    """Count the prompts, and set aside those whose text looks like a reward where such are refused."""
    template, names = wanted.policy.template, wanted.policy.names
    for prompt in prompts:
        book.counts["prompts"] += 1
        if settings.spoof == REFUSED and template.forged(prompt.prompt, names):
            book.reject(prompt.id, "text in the prompt looks like a reward line", prompt.to_json())
        else:
            yield prompt


def _asks(prompts: Iterable[Example], wanted: TargetSpec, settings: SampleSettings) -> Iterator[SampleRequest]:
    for prompt in prompts:
        for k, request in enumerate(wanted.requests(settings.n, f"{settings.seed}/{prompt.cluster}")):
            identifier = f"{prompt.cluster}/{wanted.policy.digest}/{_ROUND}/{k}"
            seed = _seed(settings.seed, prompt.cluster, k)
            yield SampleRequest(identifier, seed, prompt, request.prompt_values, request.target, request.wanted)


def _seed(run: int, prompt: str, k: int) -> int:
    """Return a sample's own seed: the same on every machine, in every batch, after every interruption."""
    return int.from_bytes(hashlib.sha256(f"{run}/{prompt}/{k}".encode()).digest()[:6])


def _settle(ask: SampleRequest, drawn: Generation | FailedCompletion, row: Example, book: ResumableWriter) -> None:
    """Write the row with what was drawn, or set it aside where nothing was."""
    if isinstance(drawn, FailedCompletion):
        book.reject(ask.id, drawn.reason, row.to_json())
        return
    measured = {name: getattr(drawn, name) for name in _GENERATION_FIELDS}
    book.write(replace(row, completion=drawn.text, **measured))


def _sampled(ask: SampleRequest, policy: str, decoding: Mapping[str, float]) -> Example:
    """Return all of a row but what is drawn."""
    return Example(
        id=ask.id,
        prompt=ask.prompt,
        group=ask.source.cluster,
        split=ask.source.split,
        source=ask.source.source,
        target=ask.target,
        prompt_numbers={name: round(number_of(wish), 6) for name, wish in ask.prompt_values.items()},
        wanted={name: round(number, 6) for name, number in ask.wanted.items()},
        policy=policy,
        seed=ask.seed,
        decoding=decoding,
    )
