"""irlhf sample."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from irlhf.cli import completion, options
from irlhf.sampling.settings import SampleSettings

EXAMPLES = """Examples:

irlhf sample policy prompts.jsonl -t helpful=0.9 -t harmless=0.7

irlhf sample policy examples.jsonl -t helpful=0:1:0.25 -o sweep.jsonl

irlhf sample policy examples.jsonl -t helpful=data -t harmless=data -n 8

irlhf sample policy examples.jsonl --weights "2*helpful+3*harmless"

irlhf sample policy examples.jsonl -t harmless=0.6.. --weights helpful

irlhf sample policy examples.jsonl -t helpful=data -n 8 --reference policy

irlhf sample policy prompts.jsonl -t helpful=0.9 --guidance 2

irlhf sample policy prompts.jsonl -t helpful=0.9 --guidance 1.5 --against opposite

irlhf sample HuggingFaceTB/SmolLM2-135M-Instruct prompts.jsonl -n 8 -o samples.jsonl

irlhf sample policy examples.jsonl -t helpful=data -n 8 --shard 2/8 -o samples-2.jsonl

irlhf sample policy examples.jsonl -t helpful=data -n 8 --executor ray

irlhf sample policy prompts.jsonl -t helpful=0.9 --base-url http://127.0.0.1:8000/v1

irlhf sample policy prompts.jsonl -t helpful=0.9 --base-url http://127.0.0.1:8000/v1 --api chat --served-name policy"""


class MixFrom(StrEnum):
    """Where a mix takes its targets from."""

    best = "best"
    front = "front"
    achieved = "achieved"


class Injection(StrEnum):
    """What becomes of user text that imitates a reward line."""

    escape = "escape"
    refuse = "refuse"
    allow = "allow"


class Precision(StrEnum):
    """The number format of the weights."""

    auto = "auto"
    bf16 = "bf16"
    fp32 = "fp32"


class Against(StrEnum):
    """The prompt that guidance moves away from."""

    none = "none"
    opposite = "opposite"


class Api(StrEnum):
    """Which API of a server is called."""

    completions = "completions"
    chat = "chat"


def sample(
    policy: Annotated[Path, typer.Argument(help="Folder of a policy, or a base model.", metavar="POLICY")],
    prompts: Annotated[Path, typer.Argument(help="Rows with a prompt, or a .txt file; - is stdin.", metavar="PROMPTS")],
    target: Annotated[
        list[str] | None,
        options.request_option(
            "-t",
            "--target",
            help="Target of a reward, such as helpful=0.9; repeatable.",
            metavar="NAME=VALUE",
            autocompletion=completion.targets,
        ),
    ] = None,
    weights: Annotated[
        str,
        options.request_option(
            "--weights",
            help="Mix of the other rewards, such as 2*helpful+3*harmless, or a rewards.yaml.",
            metavar="MIX",
            autocompletion=completion.weights,
        ),
    ] = "",
    mix_from: Annotated[
        MixFrom | None,
        options.request_option(
            "--mix-from",
            help="Targets of a mix: best, front or achieved. \\[achieved if measured, else front]",
            metavar="NAME",
        ),
    ] = None,
    no_clamp: Annotated[
        bool,
        options.request_option(
            "--no-clamp", help="Write targets as given, even beyond the reachable range.", metavar=""
        ),
    ] = False,
    injection: Annotated[
        Injection,
        options.request_option(
            "--injection",
            help="User text that imitates a reward line: escape it, refuse its prompt, or allow it.",
            metavar="NAME",
        ),
    ] = Injection.escape,
    guidance: Annotated[
        float,
        options.request_option("--guidance", min=0, max=20, help="Values above 1 exaggerate the targets.", metavar="W"),
    ] = 1.0,
    against: Annotated[
        Against,
        options.request_option(
            "--against",
            help="Prompt that --guidance moves away from: none (no target) or opposite.",
            metavar="NAME",
        ),
    ] = Against.none,
    n: Annotated[int, options.sampling_option("-n", min=1, help="Samples of each prompt and target.")] = 1,
    split: Annotated[
        str,
        options.sampling_option(
            "--split",
            metavar="NAMES",
            help="test, validation, train or all. \\[test; for a base model train,validation]",
        ),
    ] = "",
    limit: options.SamplingLimit = 0,
    temperature: Annotated[
        float,
        options.sampling_option(
            "--temperature", min=0, help="Temperature; 0 takes the most likely token.", metavar="T"
        ),
    ] = 1.0,
    top_p: Annotated[
        float,
        options.sampling_option(
            "--top-p", min=0, max=1, help="Sample among the likeliest tokens of this share.", metavar="SHARE"
        ),
    ] = 1.0,
    on_bad_row: Annotated[
        options.BadRow,
        options.sampling_option(
            "--on-bad-row",
            metavar="stop|skip",
            help="Stop at the first row that cannot be read, or reject it with the reason.",
        ),
    ] = options.BadRow.stop,
    max_tokens: Annotated[
        int, options.sampling_option("--max-tokens", min=1, help="Most tokens of a completion.")
    ] = 128,
    batch: Annotated[int, options.sampling_option("--batch", min=1, help="Samples drawn at the same time.")] = 64,
    seed: options.SamplingSeed = 0,
    reference: Annotated[
        str,
        options.sampling_option("--reference", help="Model that the KL divergence is measured from.", metavar="FOLDER"),
    ] = "",
    precision: Annotated[
        Precision,
        options.sampling_option("--precision", help="Format of the weights: auto, bf16 or fp32.", metavar="NAME"),
    ] = Precision.auto,
    shard: options.SamplingShard = "",
    executor: options.SamplingExecutor = options.ExecutorName.local,
    workers: options.SamplingWorkers = 0,
    base_url: Annotated[
        str,
        options.server_option("--base-url", help="Server that holds the policy, up to and with /v1.", metavar="URL"),
    ] = "",
    served_name: options.ServedName = "",
    api: Annotated[
        Api | None,
        options.server_option(
            "--api",
            help="API of the server: completions or chat. \\[chat for a model that a host trained]",
            metavar="NAME",
        ),
    ] = None,
    concurrency: Annotated[
        int, options.server_option("--concurrency", min=1, help="Most requests at the same time.", metavar="N")
    ] = 16,
    api_key_env: options.ApiKeyEnv = "",
    output: Annotated[
        Path | None,
        options.output_option("-o", "--output", help="Where to write; - is stdout. \\[samples.jsonl]", metavar="FILE"),
    ] = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Sample a policy at the rewards you request, or a base model.

    Targets: 0.8 is exact, 0.6.. at least, ..0.4 at most, 0.2..0.9 between, ~0.6..
    drawn from the training rows above 0.6, p90 a percentile of them, 0:1:0.1 a
    sweep, uniform anywhere on the scale, data the joint targets of training rows,
    raw:4 a reward of 4 in the units of its scorer.
    --weights requests the best mix within the targets: -t harmless=0.6..
    --weights helpful.

    A base model (a folder without policy.json, or a hub id) gets prompts without
    rewards. Its samples can be scored and used to train a first policy, so it
    answers the prompts of the train and validation splits.

    With --guidance W, the logits are other + W * (policy - other), where other is
    the policy without targets, or with --against opposite at the mirrored ones.

    With --base-url, a server that speaks OpenAI's protocol samples: by default
    /v1/completions with token ids (vllm serve), with --api chat
    /v1/chat/completions with messages (transformers serve, llama.cpp, Ollama).
    A policy that a host trained is sampled at that host. Entropy, --reference
    and --guidance need the policy on this machine.
    """
    from irlhf.core import console
    from irlhf.policy.recorded_rewards import rewards_file_of
    from irlhf.sampling.sample import sample as draw

    console.be_quiet(quiet)
    out = options.output_for(output, prompts, "samples.jsonl")
    settings = SampleSettings(
        target=tuple(target or ()),
        weights=weights,
        n=n,
        split=split,
        limit=limit,
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        batch=batch,
        seed=seed,
        reference=reference,
        shard=shard,
        guidance=guidance,
        pick=mix_from.value if mix_from else "",
        raw=no_clamp,
        spoof=injection.value,
        base_url=base_url,
        served_name=served_name,
        api_key_env=api_key_env,
        concurrency=concurrency,
        api=api.value if api else "",
        precision=precision.value,
        against=against.value,
        on_bad_row=on_bad_row.value,
    )
    summary = draw(policy, prompts, out, settings, options.executor(executor, workers))
    written = f"{summary.get('written', 0):,} samples of {summary.get('prompts', 0):,} prompts"
    scored = out.with_name(f"scored-{out.name}")
    rewards = rewards_file_of(policy) or options.UNKNOWN_FILE
    options.finish(summary, json_, written, f"irlhf score {out} -r {rewards} -o {scored}")
