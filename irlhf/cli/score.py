"""irlhf score."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from irlhf.cli import options
from irlhf.core.errors import ConfigError
from irlhf.scoring.settings import KeepSettings, ScoreSettings, SelectSettings

EXAMPLES = """Examples:

irlhf score examples.jsonl -r rewards.yaml -o scored.jsonl

irlhf score samples.jsonl -r rewards.yaml -o scored-samples.jsonl --on-bad-row skip

irlhf score scored-samples.jsonl --keep best -o best.jsonl

irlhf score examples.jsonl -r rewards.yaml --shard 2/8 -o scored-2.jsonl

irlhf score examples.jsonl -r rewards.yaml --engine ray"""


def score(
    examples: Annotated[Path, typer.Argument(help="Examples or samples; - is stdin.", metavar="EXAMPLES")],
    rewards: Annotated[
        str, typer.Option("-r", "--rewards", help="The rewards.yaml that says who is asked.", metavar="FILE")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write; - is stdout. \\[scored.jsonl, kept.jsonl]")
    ] = None,
    gold: Annotated[bool, typer.Option("--gold", help="Ask the gold scorers instead, and fill `gold`.")] = False,
    keep: Annotated[
        str, typer.Option(help="Choose among scored samples, see above.", metavar="best|nearest|RULES")
    ] = "",
    weights: Annotated[
        str, typer.Option(help="What is best for --keep. \\[as it was asked]", metavar="EXPR|FILE")
    ] = "",
    policy: Annotated[
        list[str] | None, typer.Option("--policy", help="For --keep. \\[folders beside the samples]")
    ] = None,
    limit: options.Limit = 0,
    on_bad_row: options.OnBadRow = options.BadRow.stop,
    shard: options.Shard = "",
    engine: options.Engine = options.EngineName.local,
    workers: options.Workers = 0,
    cache: Annotated[
        str, typer.Option(help="What models and servers said. \\[replies.sqlite beside the output]", metavar="FILE")
    ] = "",
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Give every completion its rewards; run it again to go on where it stopped.

    With --keep no scorer is asked: of the scored samples that one policy drew for one prompt and one target, the one
    with the best weighted reward is kept, or the one nearest to its target. Or rules choose those that are worth
    training on, one after the other, as in --keep distinct,front,entropy=1.2: distinct drops equal completions of a
    prompt, front what another sample of the prompt exceeds in every reward, top=0.5 all but the best half by weighted
    reward; entropy=1.2 drops the surest samples until the rest has that mean entropy, entropy-floor=1 those of less,
    entropy-share=0.3 three tenths, kl=0.5 those farthest from the reference, random=0.3 three tenths by lot.

    What a model or a server said of a text is kept in --cache and never asked again: with one more reward in the
    rewards.yaml, or with one rubric changed, only that reward is asked.

    With --shard 2/8 only the second of eight parts of the prompts is scored, so that eight machines share the work:
    the rows of all eight files, put together by cat, are those of one run.

    With --engine ray the workers of a Ray cluster do it, each with its own copy of the model: of the cluster that
    RAY_ADDRESS names, else of one started here. The rows are the same, and either engine goes on where the other was.
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
            "--engine": engine is not options.EngineName.local,
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
        summary = score_rows(examples, rewards, out, settings, options.engine(engine, workers))
        written = f"{summary.get('written', 0):,} scored rows"
        following = f"irlhf finetune {out} --model tiny, or irlhf eval {out} for samples and pairs"
        options.finish(summary, json_, written, following)


def _refuse(given: Mapping[str, bool], reason: str) -> None:
    for flag, is_given in given.items():
        if is_given:
            raise ConfigError(f"{flag} {reason}; leave it out")
