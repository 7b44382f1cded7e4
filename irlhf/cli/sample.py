"""irlhf sample."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

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


def _request(*names: str, help: str, metavar: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=options.REQUEST, **settings)


def _sampling(*names: str, help: str, metavar: str = "N", **settings: Any) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=options.SAMPLING, **settings)


def _server(*names: str, help: str, metavar: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=options.SERVER, **settings)


def sample(
    policy: Annotated[Path, typer.Argument(help="Folder of a policy, or a base model.", metavar="POLICY")],
    prompts: Annotated[Path, typer.Argument(help="Rows with a prompt, or a .txt file; - is stdin.", metavar="PROMPTS")],
    target: Annotated[
        list[str] | None,
        _request(
            "-t",
            "--target",
            help="Target of a reward, such as helpful=0.9; repeatable.",
            metavar="NAME=VALUE",
            autocompletion=completion.targets,
        ),
    ] = None,
    weights: Annotated[
        str,
        _request(
            "--weights",
            help="Mix of the other rewards, such as 2*helpful+3*harmless, or a rewards.yaml.",
            metavar="MIX",
            autocompletion=completion.weights,
        ),
    ] = "",
    mix_from: Annotated[
        MixFrom | None,
        _request(
            "--mix-from",
            help="Targets of a mix: best, front or achieved. \\[achieved if measured, else front]",
            metavar="NAME",
        ),
    ] = None,
    no_clamp: Annotated[
        bool, _request("--no-clamp", help="Write targets as given, even beyond the reachable range.", metavar="")
    ] = False,
    injection: Annotated[
        Injection,
        _request(
            "--injection",
            help="User text that imitates a reward line: escape it, refuse its prompt, or allow it.",
            metavar="NAME",
        ),
    ] = Injection.escape,
    guidance: Annotated[
        float, _request("--guidance", min=0, max=20, help="Values above 1 exaggerate the targets.", metavar="W")
    ] = 1.0,
    against: Annotated[
        Against,
        _request(
            "--against",
            help="Prompt that --guidance moves away from: none (no target) or opposite.",
            metavar="NAME",
        ),
    ] = Against.none,
    n: Annotated[int, _sampling("-n", min=1, help="Samples of each prompt and target.")] = 1,
    split: Annotated[
        str,
        _sampling(
            "--split",
            metavar="NAMES",
            help="test, validation, train or all. \\[test; for a base model train,validation]",
        ),
    ] = "",
    limit: Annotated[
        int, _sampling("--limit", show_default=False, min=0, help="Use only the first N prompts; 0 uses all.")
    ] = 0,
    temperature: Annotated[
        float, _sampling("--temperature", min=0, help="Temperature; 0 takes the most likely token.", metavar="T")
    ] = 1.0,
    top_p: Annotated[
        float,
        _sampling("--top-p", min=0, max=1, help="Sample among the likeliest tokens of this share.", metavar="SHARE"),
    ] = 1.0,
    on_bad_row: Annotated[
        options.BadRow,
        _sampling(
            "--on-bad-row",
            metavar="stop|skip",
            help="Stop at the first row that cannot be read, or set it aside with its reason.",
        ),
    ] = options.BadRow.stop,
    max_tokens: Annotated[int, _sampling("--max-tokens", min=1, help="Most tokens of a completion.")] = 128,
    batch: Annotated[int, _sampling("--batch", min=1, help="Samples drawn at the same time.")] = 64,
    seed: Annotated[int, _sampling("--seed", min=0, max=2**32 - 1, help="Seed of every random draw.")] = 0,
    reference: Annotated[
        str,
        _sampling("--reference", help="Model that the KL divergence is measured from.", metavar="FOLDER"),
    ] = "",
    precision: Annotated[
        Precision, _sampling("--precision", help="Format of the weights: auto, bf16 or fp32.", metavar="NAME")
    ] = Precision.auto,
    shard: Annotated[
        str, _sampling("--shard", help="Sample part I of N only; cat joins the outputs of all parts.", metavar="I/N")
    ] = "",
    executor: Annotated[
        options.ExecutorName,
        _sampling("--executor", help="Work in this process (local) or on a Ray cluster (ray).", metavar="NAME"),
    ] = options.ExecutorName.local,
    workers: Annotated[
        int,
        _sampling("--workers", show_default=False, min=0, help="Workers of --executor ray; 0 starts as many as fit."),
    ] = 0,
    base_url: Annotated[
        str, _server("--base-url", help="Server that holds the policy, up to and with /v1.", metavar="URL")
    ] = "",
    served_name: options.ServedName = "",
    api: Annotated[
        Api | None,
        _server(
            "--api",
            help="API of the server: completions or chat. \\[chat for a model that a host trained]",
            metavar="NAME",
        ),
    ] = None,
    concurrency: Annotated[
        int, _server("--concurrency", min=1, help="Most requests at the same time.", metavar="N")
    ] = 16,
    api_key_env: options.ApiKeyEnv = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Where to write; - is stdout. \\[samples.jsonl]",
            metavar="FILE",
            rich_help_panel=options.OUTPUT,
        ),
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
