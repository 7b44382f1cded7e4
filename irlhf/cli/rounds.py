"""irlhf rounds."""

from pathlib import Path
from typing import Annotated

import typer

from irlhf.cli import options
from irlhf.rounds.settings import RoundsSettings
from irlhf.training.hosted.settings import HostedSettings
from irlhf.training.settings import FinetuneSettings

EXAMPLES = """Examples:

irlhf rounds scored.jsonl -r rewards.yaml --model policy --rounds 3 --prompts 128 -o online

irlhf rounds scored.jsonl -r rewards.yaml --model policy --keep distinct,front --replay 0.7 -o online

irlhf rounds scored.jsonl -r rewards.yaml --model policy --price-per-mtok 3 --max-spend 20 --yes -o online"""


def rounds(
    scored: Annotated[
        Path, typer.Argument(help="Scored examples: prompts to sample, and rows to replay.", metavar="SCORED")
    ],
    rewards: Annotated[
        str,
        options.request_option(
            "-r", "--rewards", metavar="FILE", help="rewards.yaml whose scorers score the samples of every round."
        ),
    ] = "",
    request: Annotated[
        str,
        options.request_option(help="Targets of each round: weighted, past, high, data or uniform.", metavar="NAME"),
    ] = "weighted",
    rounds: Annotated[
        int,
        options.sampling_option(min=1, help="Number of rounds.", metavar="N"),
    ] = 3,
    prompts: Annotated[
        int,
        options.sampling_option(min=1, help="Prompts of the training split in each round.", metavar="N"),
    ] = 128,
    samples: Annotated[int, options.sampling_option(min=1, help="Samples of each prompt.", metavar="N")] = 8,
    max_tokens: Annotated[int, options.sampling_option(min=1, help="Most tokens of a sample.", metavar="N")] = 128,
    keep: Annotated[
        str,
        options.sampling_option(
            help="Rules that choose the samples to train on, as in irlhf score --keep.", metavar="RULES"
        ),
    ] = "distinct",
    replay: Annotated[
        float,
        options.sampling_option(
            min=0, max=0.99, help="Share of rows from SCORED among the training rows of a round.", metavar="SHARE"
        ),
    ] = 0.5,
    eval_prompts: Annotated[
        int,
        options.sampling_option(min=4, help="Validation prompts that every policy is measured on.", metavar="N"),
    ] = 64,
    model: Annotated[
        str,
        options.training_option(help="Folder of the policy that the first round starts from.", metavar="FOLDER"),
    ] = "policy",
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
    precision: options.Precision = "auto",
    report_to: options.ReportTo = "none",
    seed: options.TrainingSeed = 0,
    host: options.Host = "",
    hyperparameter: options.Hyperparameter = None,
    api_key_env: options.ApiKeyEnv = "",
    price_per_mtok: options.Price = 0.0,
    max_spend: options.MaxSpend = 0.0,
    yes: options.Yes = False,
    output: Annotated[
        Path,
        options.output_option("-o", "--output", help="Folder of all rounds.", metavar="FOLDER"),
    ] = Path("online"),
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Improve a policy on its own samples, round after round.

    Each round samples training prompts with the policy of the round before, scores
    the samples, keeps some of them, and trains on; the scales never change. After
    each round the policy is measured on the same validation prompts. With gold
    scorers in rewards.yaml, the rounds stop where gold falls while the rewards rise.

    OUTPUT/policy is a link to the policy to use, OUTPUT/rounds.json holds all
    measurements. Interrupted, the same command resumes. A policy that a host
    trained is trained on at that host, with one job a round.
    """
    from irlhf.core import console
    from irlhf.rounds.rounds import run_rounds

    console.be_quiet(quiet)
    training = FinetuneSettings(
        rewards=rewards,
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
        precision=precision,
        report_to=report_to,
        seed=seed,
    )
    hosted = HostedSettings(
        host=host,
        hyperparameters=tuple(hyperparameter or ()),
        api_key_env=api_key_env,
        price=price_per_mtok,
        max_spend=max_spend,
        yes=yes,
    )
    settings = RoundsSettings(
        rounds=rounds,
        prompts=prompts,
        samples=samples,
        ask=request,
        keep=keep,
        replay=replay,
        max_tokens=max_tokens,
        watch=eval_prompts,
        training=training,
        hosted=hosted,
    )
    summary = run_rounds(scored, output, model, settings)
    following = f"irlhf plot {output}/rounds.json, irlhf sample {output}/policy PROMPTS"
    options.finish(summary, json_, "the rounds", following)
