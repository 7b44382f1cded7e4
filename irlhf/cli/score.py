"""irlhf score."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from irlhf.cli import completion, options
from irlhf.core.errors import ConfigError
from irlhf.scoring.settings import KeepSettings, ScoreSettings, SelectSettings

EXAMPLES = """Examples:

irlhf score examples.jsonl -r rewards.yaml -o scored.jsonl

irlhf score samples.jsonl -r rewards.yaml -o scored-samples.jsonl --on-bad-row skip

irlhf score scored-samples.jsonl --keep best -o best.jsonl

irlhf score examples.jsonl -r rewards.yaml --shard 2/8 -o scored-2.jsonl

irlhf score examples.jsonl -r rewards.yaml --executor ray"""


def score(
    examples: Annotated[Path, typer.Argument(help="Examples or samples; - is stdin.", metavar="EXAMPLES")],
    rewards: Annotated[
        str,
        options.request_option("-r", "--rewards", help="rewards.yaml that names the scorers.", metavar="FILE"),
    ] = "",
    gold: Annotated[
        bool,
        options.request_option("--gold", help="Run the gold scorers and fill `gold`."),
    ] = False,
    keep: Annotated[
        str,
        options.request_option(
            help="Run no scorer; keep scored samples: best, nearest or a list of rules.", metavar="RULES"
        ),
    ] = "",
    weights: Annotated[
        str,
        options.request_option(
            help="What is best for --keep: a mix or a rewards.yaml. \\[as requested]",
            metavar="MIX",
            autocompletion=completion.weights,
        ),
    ] = "",
    policy: Annotated[
        list[str] | None,
        options.request_option(
            "--policy", help="Policy of the samples for --keep. \\[folders beside the samples]", metavar="FOLDER"
        ),
    ] = None,
    limit: options.Limit = 0,
    on_bad_row: options.OnBadRow = options.BadRow.stop,
    shard: options.Shard = "",
    executor: options.Executor = options.ExecutorName.local,
    workers: options.Workers = 0,
    cache: Annotated[
        str,
        typer.Option(
            help="Replies of models and servers, kept for later runs. \\[replies.sqlite beside the output]",
            metavar="FILE",
        ),
    ] = "",
    output: Annotated[
        Path | None,
        options.output_option(
            "-o", "--output", help="Where to write; - is stdout. \\[scored.jsonl, kept.jsonl]", metavar="FILE"
        ),
    ] = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score every completion; interrupted, the same command resumes.

    Replies of models and servers are kept in --cache: after a change in
    rewards.yaml only the rewards that changed are computed.

    With --keep best or nearest, of the samples of one prompt and one target the one
    with the best weighted reward is kept, or the one nearest to its target. Rules
    choose samples to train on, one after the other, as in --keep
    distinct,front,entropy=1.2:

    distinct drops equal completions of a prompt; front drops samples that another
    sample of the prompt exceeds in every reward; top=0.5 keeps the better half by
    weighted reward; entropy=1.2 drops the lowest entropies until the mean is 1.2;
    entropy-floor=1 drops entropies below 1; entropy-share=0.3 drops the lowest 30%;
    kl=0.5 drops the farthest from the reference until the mean is 0.5; random=0.3
    drops 30% at random.

    With --executor ray, the workers of the cluster at RAY_ADDRESS do the work, or
    of one started on this machine. The rows are the same.
    """
    from irlhf.core import console

    console.be_quiet(quiet)
    if keep:
        from irlhf.scoring.best_of_n import keep as keep_best
        from irlhf.scoring.filters import select

        skip = on_bad_row is options.BadRow.skip
        given = {"-r": bool(rewards), "--gold": gold, "--on-bad-row skip": skip, "--shard": bool(shard)}
        given |= {
            "--cache": bool(cache),
            "--executor": executor is not options.ExecutorName.local,
            "--workers": bool(workers),
        }
        _refuse(given, "asks a scorer, and --keep asks none")
        out = options.output_for(output, examples, "kept.jsonl")
        policies = tuple(policy or ())
        if keep in ("best", "nearest"):
            best = KeepSettings(keep=keep, weights=weights, policies=policies, limit=limit)
            summary = keep_best(examples, out, best)
        else:
            rules = SelectSettings(rules=keep, weights=weights, policies=policies, limit=limit)
            summary = select(examples, out, rules)
        written = f"{summary.get('written', 0):,} of {summary.get('candidates', 0):,} samples"
        options.finish(summary, json_, written, f"irlhf eval {out}")
    else:
        from irlhf.scoring.score import score as score_rows

        _refuse({"--weights": bool(weights), "--policy": bool(policy)}, "belongs to --keep")
        out = options.output_for(output, examples, "scored.jsonl")
        settings = ScoreSettings(gold=gold, limit=limit, on_bad_row=on_bad_row.value, shard=shard, cache=cache)
        summary = score_rows(examples, rewards, out, settings, options.executor(executor, workers))
        written = f"{summary.get('written', 0):,} scored rows"
        next_for_examples = f"irlhf finetune {out} -r {rewards} --model tiny"
        options.finish(summary, json_, written, f"irlhf eval {out}" if summary.get("samples") else next_for_examples)


def _refuse(given: Mapping[str, bool], reason: str) -> None:
    for flag, is_given in given.items():
        if is_given:
            raise ConfigError(f"{flag} {reason}; leave it out")
