"""irlhf finetune."""

from pathlib import Path
from typing import Annotated

import typer

from irlhf.cli import completion, options
from irlhf.training.hosted.settings import HostedSettings
from irlhf.training.settings import FinetuneSettings

EXAMPLES = """Examples:

irlhf finetune scored.jsonl --model tiny -r rewards.yaml -o policy

irlhf finetune scored.jsonl --model ./Qwen3-0.6B --objective contrast --lora 32 -o policy

irlhf finetune scored.jsonl --model ./Qwen3-0.6B -o policy --preview 2

irlhf finetune scored.jsonl --model ./Qwen3-0.6B --baseline prompted -o prompted

irlhf finetune scored.jsonl --render-only -o train.jsonl

irlhf finetune scored.jsonl --model openai:NAME --base-url https://HOST/v1 --price-per-mtok 3 -o policy"""


def finetune(
    scored: Annotated[
        Path, typer.Argument(help="Scored examples to train on; - reads them from stdin.", metavar="SCORED")
    ],
    rewards: options.Rewards = "",
    template: Annotated[
        str,
        options.request_option(
            help="How rewards are written into the prompt: a name or a YAML file. \\[reward-end]",
            metavar="NAME",
            autocompletion=completion.templates,
        ),
    ] = "",
    keep_scales_of: Annotated[
        str,
        options.request_option(help="Keep the scales and the template of this policy.", metavar="FOLDER"),
    ] = "",
    baseline: Annotated[
        str,
        options.request_option(help="Train a baseline instead: plain, chosen, top or prompted.", metavar="NAME"),
    ] = "",
    model: options.BaseModel = "tiny",
    objective: options.Objective = "likelihood",
    contrast: options.Contrast = None,
    beta: options.Beta = 0.1,
    epochs: options.Epochs = 0.0,
    learning_rate: options.LearningRate = 0.0,
    batch: options.Batch = 16,
    context: options.Context = 0,
    drop: options.Drop = 0.1,
    drop_all: options.DropAll = 0.0,
    drop_cut: options.DropCut = False,
    accumulate: options.Accumulate = 1,
    lora: options.Lora = 0,
    no_merge: options.NoMerge = False,
    keep_best: Annotated[
        bool,
        options.training_option("--keep-best", help="Keep the checkpoint with the most steering information."),
    ] = False,
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
        options.output_option("-o", "--output", help="Folder of the policy. \\[policy]", metavar="FOLDER"),
    ] = None,
    render_only: options.RenderOnly = False,
    preview: options.Preview = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a policy that follows the rewards in its prompt, or a baseline to compare it with.

    Objectives: likelihood learns the completions behind their rewards. contrast
    also compares each completion under its own target and under other targets,
    which makes pretrained models follow. ra-dpo prefers, of two completions of a
    prompt, the one whose rewards stand in the prompt.

    Baselines: plain learns the same rows without reward lines. chosen learns the
    rows labelled chosen; without labels, the better of two random rows. top
    learns the best tenth of the rows. prompted is not trained: the base model
    itself is asked for the rewards in English (template instruction).

    A base model openai:NAME is trained by a host that speaks OpenAI's fine-tuning
    protocol, by likelihood or ra-dpo. The command prints the cost and asks before
    it submits a job. Interrupted, the same command resumes, and never pays twice;
    irlhf jobs shows, cancels or resubmits the job. OpenAI itself accepts no new
    jobs from 2027-01-06 on; other hosts do.
    """
    from irlhf.core import console
    from irlhf.training import finetune as training

    console.be_quiet(quiet)
    settings = FinetuneSettings(
        rewards=rewards,
        template=template,
        like=keep_scales_of,
        baseline=baseline,
        objective=objective,
        **options.contrast_settings(contrast),
        beta=beta,
        epochs=epochs,
        learning_rate=learning_rate,
        batch=batch,
        context=context,
        drop=drop,
        drop_all=drop_all,
        drop_cut=drop_cut,
        accumulate=accumulate,
        lora=lora,
        merge=not no_merge,
        keep_best=keep_best,
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
        typer.echo(console.clean(training.preview(scored, model, preview, settings)))
    elif render_only:
        summary = training.render(scored, output or Path("train.jsonl"), settings)
        options.finish(summary, json_, f"{summary.get('written', 0):,} training rows")
    else:
        out = output or Path("policy")
        summary = training.finetune(scored, out, model, settings, hosted)
        name = next(iter(summary.get("rewards", [])), "NAME")
        options.finish(summary, json_, "the policy", f"irlhf sample {out} {scored} -t {name}=0.9")
