"""irlhf reward-model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from irlhf.cli import options
from irlhf.training.hosted.settings import HostedSettings, refuse_hosted
from irlhf.training.settings import RewardModelSettings

EXAMPLES = """Examples:

irlhf reward-model pairs.jsonl --model ./ModernBERT-base -o reward-model

irlhf reward-model pairs.jsonl --model ./ModernBERT-base --half gold -o gold

irlhf reward-model rated.jsonl --reward clarity --model ./ModernBERT-base -o clarity-rm

irlhf reward-model pairs.jsonl --model openai:NAME --base-url https://HOST/v1 -o reward-model

irlhf reward-model pairs.jsonl --render-only -o train.jsonl"""


def reward_model(
    pairs: Annotated[Path, typer.Argument(help="Preference pairs, or rated examples; - reads stdin.", metavar="PAIRS")],
    model: options.BaseModel = "tiny",
    reward: Annotated[
        str,
        options.training_option(
            help="Learn the ratings of this reward or column, in their units, not pairs.", metavar="NAME"
        ),
    ] = "",
    half: Annotated[
        str,
        options.training_option(
            help="Train on one half of the conversations: proxy or gold. The halves share none.", metavar="NAME"
        ),
    ] = "",
    epochs: options.Epochs = 0.0,
    learning_rate: options.LearningRate = 0.0,
    batch: options.Batch = 16,
    context: options.Context = 0,
    accumulate: options.Accumulate = 1,
    precision: options.Precision = "auto",
    report_to: options.ReportTo = "none",
    seed: options.TrainingSeed = 0,
    limit: options.TrainingLimit = 0,
    host: options.Host = "",
    base_url: options.HostUrl = "",
    hyperparameter: options.Hyperparameter = None,
    api_key_env: options.ApiKeyEnv = "",
    price_per_mtok: options.Price = 0.0,
    max_spend: options.MaxSpend = 0.0,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
    no_wait: options.NoWait = False,
    output: Annotated[
        Path | None,
        options.output_option("-o", "--output", help="Folder of the reward model. \\[reward-model]", metavar="FOLDER"),
    ] = None,
    render_only: options.RenderOnly = False,
    preview: options.Preview = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a reward model on preference pairs or ratings; its folder is a scorer.

    A pair is two examples of one group, labelled chosen and rejected, as irlhf
    prepare writes them. The model learns from the pairs of the training split, and
    its accuracy is measured on those of the validation split.

    With --reward NAME it learns, by regression, the reward or column of that name
    that rated examples have. Its rewards are in the units of the ratings, so a
    policy that was trained on the ratings can be measured with it.

    With --half proxy and --half gold you train two reward models that never saw
    the same conversation: one to train policies on, one to evaluate them with.

    A base model openai:NAME is trained by a host to answer 1 or 0; its accuracy is
    not measured, because every answer costs money. irlhf jobs shows, cancels or
    resubmits its job.
    """
    from irlhf.core import console
    from irlhf.training import train_reward_model as training

    console.be_quiet(quiet)
    settings = RewardModelSettings(
        half=half,
        reward=reward,
        epochs=epochs,
        learning_rate=learning_rate,
        batch=batch,
        context=context,
        accumulate=accumulate,
        precision=precision,
        report_to=report_to,
        seed=seed,
        limit=limit,
    )
    hosted = HostedSettings(
        host=host,
        base_url=base_url,
        hyperparameters=tuple(hyperparameter or ()),
        api_key_env=api_key_env,
        price=price_per_mtok,
        max_spend=max_spend,
        yes=yes,
        dry_run=dry_run,
        wait=not no_wait,
    )
    if preview:
        typer.echo(console.clean(training.preview(pairs, model, preview, settings)))
    elif render_only:
        refuse_hosted(hosted)
        summary = training.render_verdicts(pairs, output or Path("train.jsonl"), settings)
        options.finish(summary, json_, f"{summary.get('written', 0):,} training rows")
    else:
        out = output or Path("reward-model")
        summary = training.train_reward_model(pairs, out, model, settings, hosted)
        options.finish(summary, json_, "the reward model", _following(out, summary))


def _following(out: Path, summary: Mapping[str, Any]) -> str:
    """Return the command to run next."""
    scorer = out if out.is_absolute() else f"./{out}"
    # A host is paid for every answer, so nobody has measured its accuracy yet.
    measure = "; irlhf eval on the scored pairs then says how often it is right" if "job" in summary else ""
    return f'irlhf score EXAMPLES -r FILE, with scorer: "{scorer}" in it{measure}'
