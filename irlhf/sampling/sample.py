"""Draw samples from a policy with target rewards, or from a base model."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import SPLITS, TEST, Example, Where, as_text, from_json, prompt_key
from irlhf.core.hashing import fingerprint, parse_shard
from irlhf.core.registry import did_you_mean
from irlhf.core.tool_calls import TOOL_KEYS
from irlhf.executors.base import LOCAL, Engine, run_pools
from irlhf.io.files import STREAM, expanded, holds_texts, read_each, read_texts
from irlhf.io.resumable import ResumableWriter, RunManifest, beside, read_examples, recorded_setting, resumable_output
from irlhf.models.gguf import model_folder
from irlhf.openai_api.server_logprobs import FailedCompletion
from irlhf.policy.escaping import REFUSED, SPOOFS
from irlhf.policy.policy_file import Policy, read_policy, read_weights
from irlhf.policy.recorded_rewards import warn_of_other_scorers
from irlhf.policy.steering_report import STEERING, ignored, ignores
from irlhf.sampling import backends
from irlhf.sampling.base_model import is_policy, read_base
from irlhf.sampling.settings import AGAINST, ALL, BASE_SPLITS, MOST_GUIDANCE, NOTHING, OPPOSITE_KEY, SampleSettings
from irlhf.sampling.target_resolution import BEST, PICKS, TargetSpec, number_of, read_targets
from irlhf.sampling.types import CUT, Generation, SampleRequest

_NOTE = "prompt was "  # begins the counts of changed prompts
_ROUND = 0  # fixed part of the ids of samples
# Fields of a generation that are copied into the row, besides the text.
_COPIED = ("finish", "tokens", "entropy", "entropy_low", "entropy_high", "logprob", "censored", "reference", "k3")


def sample(
    policy: str | Path,
    prompts: str | Path,
    output: str | Path,
    settings: SampleSettings = SampleSettings(),
    engine: Engine = LOCAL,
) -> dict[str, Any]:
    """Write one row per sample and return the counts.

    `policy` is the folder of a policy, or the folder or hub id of a base model. Prompts of a base model have no
    rewards, so its rows have no `target`. They can be scored and trained on.

    Every sample has its own seed, derived from the run's seed, the prompt's id and the sample's number. Batches are
    formed by position in the input, so that an interruption does not change any row. Raises ConfigError, DataError,
    BackendError and OutputError.
    """
    folder, source, out = Path(model_folder(f"{policy}")), Path(prompts), Path(output)
    _check(settings)
    is_base = not is_policy(folder)
    source_policy = read_base(str(folder), settings) if is_base else read_policy(folder)
    settings = replace(
        settings, split=settings.split or (BASE_SPLITS if is_base else TEST), reference=expanded(settings.reference)
    )
    settings = backends.reached(settings, source_policy, engine)
    spec = _target_spec(source_policy, settings)
    _check_guidance(settings, spec)
    settings = _with_precision(settings, folder, out)
    with resumable_output(out, _manifest(folder, source_policy, source, settings)) as writer:
        if not writer.finished:
            total = None
            if source != STREAM:  # read all rows first, to find invalid ones before sampling
                total = backends.remaining(_total(source, spec, settings, source_policy), len(writer.done), settings)
            _report_targets(spec, settings)
            warn_of_other_scorers(source_policy.scorers, source)
            distinct = _counted(_read_prompts(source, settings, writer), spec, settings, writer)
            requests = _requests(distinct, spec, settings)
            spent: Counter[str] = Counter()
            work, executor = backends.task_and_executor(folder, source_policy, settings, engine=engine, spent=spent)
            with (
                console.progress("sampling", total) as advance,
                closing(run_pools(backends.pools(requests, settings, writer.done), work, executor, advance)) as pools,
            ):
                for request, generation in (pair for pool in pools for pair in zip(*pool, strict=True)):
                    if fingerprint(request.id) not in writer.done:
                        _write(request, generation, _sampled(request, source_policy.digest, settings.decoding), writer)
            writer.counts.update(backends.account(spent))
            _report_notes(writer)
    if writer.counts["rejected"] and not writer.counts["written"] + len(writer.done):
        raise DataError(f"{source}: no sample was drawn; {beside(out, '.rejected.jsonl')} has the reason of each row")
    return writer.summary()


def _report_notes(writer: ResumableWriter) -> None:
    """Warn about prompts that the model did not get as they are in the file, and about rejected ones."""
    for note in [name for name in writer.counts if name.startswith(_NOTE)]:
        console.warn(f"{writer.counts[note]:,} samples: the {note}")
    if writer.counts["rejected"]:
        console.warn(f"{writer.counts['rejected']:,} rejected; the first: {writer.first_rejection}")


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
        raise ConfigError("--mix-from is for a mix of rewards; add --weights")
    parse_shard(settings.shard)
    if not 0 < settings.top_p <= 1:
        raise ConfigError(f"--top-p {settings.top_p}: write a number above 0, up to 1")
    if settings.reference and (settings.temperature, settings.top_p) != (1, 1):
        raise ConfigError("--reference needs samples from the unmodified policy; leave --temperature and --top-p at 1")


def _manifest(folder: Path, policy: Policy, source: Path, settings: SampleSettings) -> RunManifest:
    """Return the run's manifest, with the settings that affect the rows."""
    inputs = {"policy": folder, "prompts": source}
    deciding = {name: value for name, value in asdict(settings).items() if name not in backends.MEANS}
    if settings.on_bad_row == SampleSettings.on_bad_row:
        del deciding["on_bad_row"]  # unknown to earlier versions
    if not folder.exists():  # a base model on the hub is not a file, so its name and commit are a setting
        del inputs["policy"]
        deciding["base"] = f"{folder}@{policy.digest}"
    if settings.reference and Path(settings.reference).exists():
        inputs["reference"] = Path(settings.reference)
    return RunManifest("sample", inputs, deciding)


def _with_precision(settings: SampleSettings, folder: Path, out: Path) -> SampleSettings:
    """Return the settings with a definite precision: the given one, that of an interrupted run, or the faster one."""
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


def _total(source: Path, spec: TargetSpec, settings: SampleSettings, policy: Policy) -> int:
    """Return the number of samples to draw; for a hosted policy, print the size of the work."""
    each = spec.size(settings.n)
    sizes = [len(as_text(prompt.prompt).encode(errors="replace")) for prompt in _read_prompts(source, settings, None)]
    if policy.hosted:
        backends.tell_size(len(sizes) * each, sum(sizes) * each, settings)
    return len(sizes) * each


def _target_spec(policy: Policy, settings: SampleSettings) -> TargetSpec:
    """Return the targets and weights, validated against the policy. Raises ConfigError."""
    targets, weights = read_targets(settings.target, policy), read_weights(settings.weights, policy)
    for name in targets.keys() & weights.keys():
        raise ConfigError(f"{name} has a target and a weight; remove one of them")
    measured = policy.calibration
    fits = measured is not None and not settings.raw and _same_decoding(measured.decoding, settings.decoding)
    return TargetSpec(
        policy, targets, weights, settings.pick, measured.reach if measured and fits else {}, settings.raw
    )


def _same_decoding(measured: Mapping[str, float], now: Mapping[str, float]) -> bool:
    same_guidance = not measured or measured.get(OPPOSITE_KEY) == now.get(OPPOSITE_KEY)
    return same_guidance and all(now.get(name) == number for name, number in measured.items())


def _report_targets(spec: TargetSpec, settings: SampleSettings) -> None:
    """Print notes and warnings about targets that the user may not have intended, or that the policy ignores."""
    policy, measured = spec.policy, spec.policy.calibration
    if policy.names and not spec.targets and not spec.weights:
        console.note(f"no target, so prompts have no reward line (rewards of this policy: {', '.join(policy.names)})")
    if policy.blind and (spec.targets or spec.weights):
        console.note(
            f"this {policy.baseline or 'policy'} has no reward lines, so targets do not change its samples; the rows"
            " keep them, so that `irlhf eval` can compare it with a policy"
        )
        return
    if measured and not settings.raw and not _same_decoding(measured.decoding, settings.decoding):
        decoding = ", ".join(f"{name} {number:g}" for name, number in measured.decoding.items())
        console.warn(f"the calibration of this policy is for {decoding}; it is not used with other settings")
    for text in spec.beyond():
        console.warn(text)
    if spec.filled:
        names = ", ".join(spec.filled)
        console.note(
            f"{names}: not requested, but this policy always saw all reward lines (--drop 0), so the prompts have the"
            " numbers of training rows near the request"
        )
    for text in spec.unseen():
        console.note(text)
    if settings.temperature == 0 and settings.n > 1 and not spec.varies:
        console.warn(
            f"--temperature 0 draws the same text {settings.n} times for each prompt and target;"
            " use -n 1 or a temperature above 0"
        )
    ignored_names = ignored(policy.training.get(STEERING, {}), policy.names)  # as measured during training
    if requested := [name for name in ignored_names if name in spec.targets or name in spec.weights]:
        console.warn(ignores(requested))


def _check_guidance(settings: SampleSettings, spec: TargetSpec) -> None:
    """Raise ConfigError if guidance is out of range, or if there is no target to guide to."""
    guidance = settings.guidance
    if not 0 <= guidance <= MOST_GUIDANCE:
        raise ConfigError(f"--guidance {guidance}: write a number from 0 to {MOST_GUIDANCE}; 1 means no guidance")
    if guidance == 1 and settings.against != NOTHING:
        raise ConfigError(f"--against {settings.against} needs --guidance above 1, such as --guidance 1.5")
    if guidance == 1:
        return
    why = "this policy's prompts have no rewards" if spec.policy.blind else "there are no targets"
    if spec.policy.blind or not (spec.targets or spec.weights):
        raise ConfigError(f"--guidance {guidance:g} compares prompts with and without targets, but {why}; remove it")


def _read_prompts(source: Path, settings: SampleSettings, writer: ResumableWriter | None) -> Iterator[Example]:
    """Yield each distinct prompt of the shard once, in the order of the file. The file is read to its end.

    With `on_bad_row="skip"`, invalid rows are rejected instead of raising DataError.
    Each prompt has a group of its own: that of its row, else the row's id. If another prompt has this name already, the
    group gets a hash of the prompt. Equal messages with other tools are another prompt.
    """
    shard = parse_shard(settings.shard)
    splits = settings.split.split(",")
    names: dict[int, str] = {}  # fingerprint of a name → key of its prompt
    seen: set[str] = set()
    other: set[str] = set()
    stem = "stdin" if source == STREAM else source.stem

    def parse(row: dict[str, Any], where: Where) -> Example:
        return from_json({**row, "id": row.get("id") or f"{stem}-{where.line - 1}"}, where, completion=False)

    rows = read_each(source)
    if holds_texts(source):  # each line is a prompt
        rows = ((where, {"prompt": text}) for where, text in read_texts(source))
    for _, example in read_examples(rows, parse, shard, writer, skip=settings.on_bad_row != "stop"):
        if example.split and ALL not in splits and example.split not in splits:
            other.add(example.split)
            continue
        key = prompt_key(example.prompt, example.extra)
        if key in seen or (settings.limit and len(seen) >= settings.limit):
            continue
        seen.add(key)
        name = example.group or example.id
        if names.setdefault(fingerprint(name), key) != key:
            name = f"{name}-{key[:8]}"
        if shard.holds(name):
            yield replace(example, group=name)
    if not seen:
        other_splits = ", ".join(sorted(other))
        raise DataError(f"{source}: no prompt has the split {settings.split}; use --split {other_splits} or all")


def _counted(
    prompts: Iterable[Example], spec: TargetSpec, settings: SampleSettings, writer: ResumableWriter
) -> Iterator[Example]:
    """Yield the prompts, counted; with `--injection refuse`, reject those whose text looks like a reward line."""
    template, names = spec.policy.template, spec.policy.names
    for prompt in prompts:
        writer.counts["prompts"] += 1
        if settings.spoof == REFUSED and template.forged(prompt.prompt, names):
            writer.reject(prompt.id, "text in the prompt looks like a reward line", prompt.to_json())
        else:
            yield prompt


def _requests(prompts: Iterable[Example], spec: TargetSpec, settings: SampleSettings) -> Iterator[SampleRequest]:
    for prompt in prompts:
        for k, request in enumerate(spec.requests(settings.n, f"{settings.seed}/{prompt.cluster}")):
            identifier = f"{prompt.cluster}/{spec.policy.digest}/{_ROUND}/{k}"
            # The seed does not depend on the machine, the batch or interruptions.
            seed = int.from_bytes(hashlib.sha256(f"{settings.seed}/{prompt.cluster}/{k}".encode()).digest()[:6])
            yield SampleRequest(identifier, seed, prompt, request.prompt_values, request.target, request.wanted)


def _write(request: SampleRequest, drawn: Generation | FailedCompletion, row: Example, writer: ResumableWriter) -> None:
    """Write the row with its completion, or reject it if the request failed."""
    if isinstance(drawn, FailedCompletion):
        writer.reject(request.id, drawn.reason, row.to_json())
        return
    measured = {name: getattr(drawn, name) for name in _COPIED}
    for note in drawn.notes:
        writer.counts[f"{_NOTE}{note}"] += 1
    extra = {**row.extra, "prompt_cut": True} if CUT in drawn.notes else row.extra
    writer.write(replace(row, completion=drawn.text, extra=extra, **measured))


def _sampled(request: SampleRequest, policy: str, decoding: Mapping[str, float]) -> Example:
    """Return the row of a request, without the completion."""
    return Example(
        id=request.id,
        prompt=request.prompt,
        group=request.source.cluster,
        split=request.source.split,
        source=request.source.source,
        target=request.target,
        prompt_numbers={name: round(number_of(wish), 6) for name, wish in request.prompt_values.items()},
        wanted={name: round(number, 6) for name, number in request.wanted.items()},
        policy=policy,
        seed=request.seed,
        decoding=decoding,
        extra={name: request.source.extra[name] for name in TOOL_KEYS if name in request.source.extra},
    )
