"""irlhf sample."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from irlhf.cli import options
from irlhf.sampling.settings import SampleSettings

EXAMPLES = """Examples:

irlhf sample policy prompts.jsonl -t helpful=0.9 -t harmless=0.7

irlhf sample policy examples.jsonl -t helpful=0:1:0.25 -o sweep.jsonl

irlhf sample policy examples.jsonl -t helpful=data -t harmless=data -n 8

irlhf sample policy examples.jsonl --weights 2*helpful+3*harmless

irlhf sample policy examples.jsonl -t harmless=0.6.. --weights helpful

irlhf sample policy examples.jsonl -t helpful=data -n 8 --reference policy

irlhf sample policy prompts.jsonl -t helpful=0.9 --guidance 2

irlhf sample policy prompts.jsonl -t helpful=0.9 --guidance 1.5 --against opposite

irlhf sample HuggingFaceTB/SmolLM2-135M-Instruct prompts.jsonl -n 8 -o samples.jsonl

irlhf sample policy examples.jsonl -t helpful=data -n 8 --shard 2/8 -o samples-2.jsonl

irlhf sample policy examples.jsonl -t helpful=data -n 8 --engine ray

irlhf sample policy prompts.jsonl -t helpful=0.9 --base-url http://127.0.0.1:8000/v1

irlhf sample policy prompts.jsonl -t helpful=0.9 --base-url http://127.0.0.1:8000/v1 --api chat --served-name policy"""


class Pick(StrEnum):
    """How a mix finds its targets."""

    best = "best"
    front = "front"
    achieved = "achieved"


class Spoof(StrEnum):
    """What becomes of user text that looks like a reward."""

    escape = "escape"
    refuse = "refuse"
    allow = "allow"


class Precision(StrEnum):
    """The number format of the weights."""

    auto = "auto"
    bf16 = "bf16"
    fp32 = "fp32"


class Against(StrEnum):
    """The prompt that guidance draws away from."""

    none = "none"
    opposite = "opposite"


class Api(StrEnum):
    """What a server is asked with."""

    completions = "completions"
    chat = "chat"


def sample(
    policy: Annotated[
        Path, typer.Argument(help="A policy's folder; or a base model's, or its hub id.", metavar="POLICY|BASE")
    ],
    prompts: Annotated[Path, typer.Argument(help="Rows with a prompt; - is stdin.", metavar="PROMPTS")],
    target: Annotated[
        list[str] | None, typer.Option("-t", "--target", help="What to ask for.", metavar="NAME=VALUE")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="A mix, like '2*helpful+3*harmless', or a rewards.yaml.", metavar="EXPR|FILE")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write; - is stdout. \\[samples.jsonl]")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Samples of each prompt and target.")] = 1,
    split: Annotated[
        str, typer.Option(metavar="SPLITS", help="test, validation, train, all. \\[test; of a base: train,validation]")
    ] = "",
    limit: options.Limit = 0,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token.")] = 1.0,
    top_p: Annotated[float, typer.Option(min=0, max=1, help="Keep the likeliest tokens up to this share.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a completion at most.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Samples drawn side by side.")] = 64,
    seed: options.Seed = 0,
    reference: Annotated[
        str, typer.Option(help="For KL: reads what was drawn, asked for nothing.", metavar="FOLDER")
    ] = "",
    guidance: Annotated[float, typer.Option(min=0, max=20, help="Above 1 exaggerates what is asked.")] = 1.0,
    against: Annotated[
        Against, typer.Option(help="The prompt that --guidance draws away from: no target, or the opposite one.")
    ] = Against.none,
    precision: Annotated[
        Precision, typer.Option(help="Format of the weights; auto is bf16 where that is measured to be faster.")
    ] = Precision.auto,
    pick: Annotated[
        Pick | None, typer.Option(help="How a mix finds its targets. \\[achieved where measured, else front]")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Ask for numbers just as they are written.")] = False,
    spoof: Annotated[Spoof, typer.Option(help="What becomes of user text that looks like a reward.")] = Spoof.escape,
    shard: options.Shard = "",
    engine: options.Engine = options.EngineName.local,
    workers: options.Workers = 0,
    base_url: Annotated[
        str, typer.Option(help="A server that holds the policy, up to and with /v1.", metavar="URL")
    ] = "",
    served_name: Annotated[str, typer.Option(help="What it calls the policy. \\[the only one]", metavar="NAME")] = "",
    api: Annotated[
        Api | None, typer.Option(help="Token ids, or messages. \\[completions; chat where a host keeps the weights]")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, metavar="N", help="Requests to it at a time, at most.")] = 16,
    api_key_env: Annotated[
        str, typer.Option(help="The variable that holds its key. \\[OPENAI_API_KEY]", metavar="NAME")
    ] = "",
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw samples from a policy that is asked for rewards, or from a base model.

    Targets: 0.8 is exactly that, 0.6.. at least, ..0.4 at most, 0.2..0.9
    between, ~0.6.. drawn from the training rows above 0.6, p90 a percentile
    of them, 0:1:0.1 a sweep, uniform anywhere, data joint vectors of them.

    With --weights the other rewards are a mix, as good as the targets allow:
    -t harmless=0.6.. --weights helpful.

    A base model (a folder without policy.json, or a hub id) is asked for no
    rewards. Its samples are what a first policy can be trained on, from prompts
    alone: sample, score, finetune --model BASE. So it answers the prompts of the
    train and validation splits, and those without a split. PROMPTS may be a
    .txt file with one prompt a line.

    With --guidance W tokens come from other + W * (asked - other), the logits
    behind the prompt with the targets and behind another one: without targets,
    or with --against opposite the mirrored ones (1 - x on scales from 0 to 1).

    With --shard 2/8 only the second of eight parts of the prompts is asked, so
    that eight machines share the work: the rows of all eight files, put
    together by cat, are those of one run.

    With --engine ray the workers of a Ray cluster do it, each with its own copy
    of the model: of the cluster that RAY_ADDRESS names, else of one started
    here. The rows are the same, and either engine goes on where the other was.

    With --base-url a server that speaks OpenAI's /v1/completions draws, such as
    vllm serve policy. Prompts are written here and sent as token ids. Rows say
    what the entropy lies between; entropy itself, --reference and --guidance
    need the policy here. A key comes from the environment alone.

    With --api chat prompts are written here and sent as messages to
    /v1/chat/completions, which transformers serve, llama.cpp, Ollama and all
    hosts have. A policy that a host trained is asked so where it lives, without
    --base-url. What is no whole answer (a refusal, one that a filter ended, no
    text) is set aside with its reason.
    """
    from irlhf.core import console
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
        pick=pick.value if pick else "",
        raw=raw,
        spoof=spoof.value,
        base_url=base_url,
        served_name=served_name,
        api_key_env=api_key_env,
        concurrency=concurrency,
        api=api.value if api else "",
        precision=precision.value,
        against=against.value,
    )
    summary = draw(policy, prompts, out, settings, options.engine(engine, workers))
    written = f"{summary.get('written', 0):,} samples of {summary.get('prompts', 0):,} prompts"
    options.finish(summary, json_, written, f"irlhf score {out} -r rewards.yaml -o scored-{out.name}")
