"""irlhf finetune."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from irlhf.cli import options
from irlhf.core.errors import ConfigError
from irlhf.training.settings import FinetuneSettings

EXAMPLES = """Examples:

irlhf finetune scored.jsonl --model tiny -r rewards.yaml -o policy

irlhf finetune scored.jsonl --model ./Qwen3-0.6B -o policy --preview 2

irlhf finetune scored.jsonl --model ./Qwen3-0.6B --baseline untouched -o untouched

irlhf finetune scored.jsonl --render-only -o train.jsonl

irlhf finetune scored.jsonl --model openai:NAME --base-url https://HOST/v1 --price-per-mtok 3 -o policy

irlhf finetune pairs.jsonl --objective reward --model ./ModernBERT-base -o reward-model

irlhf finetune scored.jsonl -r rewards.yaml --model policy --rounds 3 --prompts 128 -o online"""


class Objective(StrEnum):
    """What a model is trained for."""

    likelihood = "likelihood"
    contrast = "contrast"
    ra_dpo = "ra-dpo"
    reward = "reward"


_ROUNDS = "Rounds, each of the policy's own samples"


def _removed_layout(value: str | None) -> None:
    if value is not None:
        raise ConfigError("--layout was removed: rows share their prompt automatically where it saves time; remove it")


def finetune(
    scored: Annotated[Path, typer.Argument(help="Scored examples, or pairs; - is stdin.", metavar="SCORED")],
    model: Annotated[str, typer.Option(help="Base model: a folder, a hub id, tiny, or openai:NAME.")] = "tiny",
    rewards: Annotated[
        str, typer.Option("-r", "--rewards", help="rewards.yaml: directions, weights, scales.", metavar="FILE")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The folder. \\[policy or reward-model]")
    ] = None,
    objective: Annotated[Objective, typer.Option(help="Training objective, see above.")] = Objective.likelihood,
    contrast_weight: Annotated[float, typer.Option(min=0, help="Weight of the contrast beside the likelihood.")] = 1.0,
    alternatives: Annotated[
        int, typer.Option(min=1, max=64, help="Other targets that a completion is compared under.")
    ] = 1,
    one_reward: Annotated[
        float, typer.Option(min=0, max=1, help="Probability that an alternative differs in one reward only.")
    ] = 0.5,
    whole_targets: Annotated[
        float, typer.Option(min=0, max=1, help="First share of training that compares whole targets only.")
    ] = 0.5,
    beta: Annotated[float, typer.Option(min=0, help="Strength of ra-dpo's tie to the base model.")] = 0.1,
    precision: Annotated[
        str, typer.Option(help="Arithmetic of training: auto, bf16 or fp32.", metavar="KIND")
    ] = "auto",
    keep_best: Annotated[
        bool, typer.Option("--keep-best", help="Keep the checkpoint with the most steering information.")
    ] = False,
    template: Annotated[str, typer.Option(help="How rewards are spelled: a name or a YAML. \\[reward-end]")] = "",
    like: Annotated[str, typer.Option(help="Keep the scales and the template of this policy.", metavar="FOLDER")] = "",
    baseline: Annotated[str, typer.Option(help="plain, chosen, top or untouched, see above.", metavar="KIND")] = "",
    epochs: Annotated[float, typer.Option(min=0, max=10_000, help="Passes over the rows; 0 fits the base.")] = 0.0,
    learning_rate: Annotated[float, typer.Option(min=0, max=1, help="Peak learning rate; 0 fits the base.")] = 0.0,
    batch: Annotated[int, typer.Option(min=1, help="Rows, or pairs, a step.")] = 16,
    context: Annotated[int, typer.Option(min=0, help="Tokens of a row at most; 0 is the base's own.")] = 0,
    drop: Annotated[float, typer.Option(min=0, max=0.99, help="Chance that a reward line is left out.")] = 0.1,
    drop_all: Annotated[float, typer.Option(min=0, max=0.99, help="Chance that all of a row are left out.")] = 0.0,
    accumulate: Annotated[int, typer.Option(min=1, help="Parts a step is computed in, to spare memory.")] = 1,
    lora: Annotated[
        int, typer.Option(min=0, max=1024, help="Train low-rank updates of this rank alone; 0 trains all.")
    ] = 0,
    merge: Annotated[bool, typer.Option(help="Add the low-rank updates to the weights.")] = True,
    report_to: Annotated[str, typer.Option(help="A tracker that transformers knows.", metavar="NAME")] = "none",
    layout: Annotated[str | None, typer.Option(hidden=True, callback=_removed_layout)] = None,
    seed: options.Seed = 0,
    limit: options.Limit = 0,
    half: Annotated[
        str, typer.Option(help="Of a reward model: train on the half proxy or gold of the prompts.", metavar="KIND")
    ] = "",
    render_only: Annotated[bool, typer.Option("--render-only", help="Write the training file and stop.")] = False,
    preview: Annotated[int, typer.Option(min=0, metavar="N", help="Show N rows as trained, and stop.")] = 0,
    host: Annotated[str, typer.Option(help="openai, azure, nebius or a YAML.", metavar="NAME|FILE")] = "",
    base_url: Annotated[str, typer.Option(help="The host's address, up to and with /v1.", metavar="URL")] = "",
    hyperparameter: Annotated[
        list[str] | None, typer.Option(help="For the host, like batch_size=8.", metavar="KEY=VALUE")
    ] = None,
    extra_body: Annotated[str, typer.Option(help="JSON with more keys for the host.", metavar="FILE")] = "",
    api_key_env: Annotated[
        str, typer.Option(help="Variable that holds the key. \\[OPENAI_API_KEY]", metavar="NAME")
    ] = "",
    price_per_mtok: Annotated[float, typer.Option(min=0, help="What the host takes for a million tokens.")] = 0.0,
    max_spend: Annotated[float, typer.Option(min=0, help="Submit nothing that comes to more; 0 is no limit.")] = 0.0,
    yes: Annotated[bool, typer.Option("--yes", help="Pay without being asked.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and count, and send nothing.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Submit the job and do not wait for it.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the job of this output.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Pay for another job after one that failed.")] = False,
    job: Annotated[str, typer.Option(help="Go on with this job of the host's.", metavar="ID")] = "",
    served_name: Annotated[str, typer.Option(help="Name under which you deployed it.", metavar="NAME")] = "",
    rounds: Annotated[
        int, typer.Option(min=0, help="How many, on from the policy --model.", metavar="N", rich_help_panel=_ROUNDS)
    ] = 0,
    prompts: Annotated[
        int, typer.Option(min=1, help="Prompts of a round.", metavar="P", rich_help_panel=_ROUNDS)
    ] = 128,
    samples: Annotated[
        int, typer.Option(min=1, help="Samples of each prompt.", metavar="N", rich_help_panel=_ROUNDS)
    ] = 8,
    ask: Annotated[
        str, typer.Option(help="What for: weighted, past, high, data, uniform.", rich_help_panel=_ROUNDS)
    ] = "weighted",
    keep: Annotated[
        str, typer.Option(help="Which samples, as score --keep.", metavar="RULES", rich_help_panel=_ROUNDS)
    ] = "distinct",
    replay: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of offline rows.", rich_help_panel=_ROUNDS)
    ] = 0.5,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a sample at most.", rich_help_panel=_ROUNDS)] = 128,
    watch: Annotated[
        int, typer.Option(min=4, help="Validation prompts to watch.", metavar="P", rich_help_panel=_ROUNDS)
    ] = 64,
    controls: Annotated[
        bool, typer.Option("--controls", help="Run what they are held against, too.", rich_help_panel=_ROUNDS)
    ] = False,
    fresh: Annotated[
        str, typer.Option(help="Scored rows for the offline control.", metavar="FILE", rich_help_panel=_ROUNDS)
    ] = "",
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a policy that reads the reward in its prompt, or a baseline that it must beat.

    Baselines: plain learns the same rows without reward lines. chosen learns the rows labelled chosen; without labels,
    the better of two random rows by weighted reward. top learns the best tenth by weighted reward. untouched trains
    nothing: it is the base itself, asked for the same rewards in plain English (template instruction).

    With --objective reward train a reward model instead: on preference pairs (two examples of one group, labelled
    chosen and rejected, as irlhf prepare writes them), measured on those of the validation split. Its folder is a
    scorer. --half proxy and --half gold train two that share no conversation. At a host it learns to answer 1 or 0, and
    is not measured.

    likelihood and ra-dpo also train at a host. With --render-only they write its training file: ra-dpo writes pairs in
    OpenAI's preference format, for method dpo. contrast trains here only. Baselines go with likelihood.

    A base openai:NAME is trained by a host that speaks OpenAI's protocol, at --base-url. (OpenAI itself closed its
    fine-tuning: no new jobs from 2027-01-06, and accounts that had not used it were cut off already.) It says what it
    comes to and asks first. Ctrl-C stops watching and never the job; the same command again goes on, and never pays
    twice.

    With --rounds N a policy goes on learning from its own samples: each round asks prompts of the training split,
    scores what comes, keeps some and trains on from the round before, its scales frozen. What every round brings is
    measured on the same validation prompts; with gold scorers in the rewards.yaml it stops where gold falls.
    """
    from irlhf.core import console
    from irlhf.training import finetune as training
    from irlhf.training.hosted.settings import HostedSettings, refuse_hosted

    console.be_quiet(quiet)
    settings = FinetuneSettings(
        rewards=rewards,
        template=template,
        baseline=baseline,
        epochs=epochs,
        learning_rate=learning_rate,
        batch=batch,
        context=context,
        drop=drop,
        seed=seed,
        limit=limit,
        accumulate=accumulate,
        lora=lora,
        merge=merge,
        report_to=report_to,
        drop_all=drop_all,
        like=like,
        objective=Objective.likelihood if objective == Objective.reward else objective,
        contrast_weight=contrast_weight,
        alternatives=alternatives,
        one_reward=one_reward,
        whole_targets=whole_targets,
        beta=beta,
        precision=precision,
        keep_best=keep_best,
    )
    hosted = HostedSettings(
        host=host,
        base_url=base_url,
        hyperparameters=tuple(hyperparameter or ()),
        extra_body=extra_body,
        api_key_env=api_key_env,
        price=price_per_mtok,
        yes=yes,
        dry_run=dry_run,
        wait=not no_wait,
        cancel=cancel,
        again=again,
        job=job,
        served_name=served_name,
        max_spend=max_spend,
    )
    if rounds:
        from irlhf.rounds.rounds import run_rounds
        from irlhf.rounds.settings import RoundsSettings

        _refuse_beside_rounds(objective, half, preview, render_only)
        rounds_settings = RoundsSettings(
            rounds=rounds,
            prompts=prompts,
            samples=samples,
            ask=ask,
            keep=keep,
            replay=replay,
            max_tokens=max_tokens,
            watch=watch,
            controls=controls,
            fresh=fresh,
            training=settings,
            hosted=hosted,
        )
        out = output or Path("online")
        summary = run_rounds(scored, out, model, rounds_settings)
        options.finish(summary, json_, "the rounds", f"irlhf plot {out}/rounds.json, irlhf sample {out}/policy PROMPTS")
        return
    if objective == Objective.reward:
        from irlhf.training.train_reward_model import render_verdicts, settings_from, train_reward_model

        reward_settings = settings_from(settings, half, preview)
        if render_only:
            refuse_hosted(hosted)
            summary = render_verdicts(scored, output or Path("train.jsonl"), reward_settings)
            options.finish(summary, json_, f"{summary.get('written', 0):,} training rows")
        else:
            out = output or Path("reward-model")
            summary = train_reward_model(scored, out, model, reward_settings, hosted)
            options.finish(summary, json_, "the reward model", _use_of_reward_model(out, summary))
        return
    if half:
        raise ConfigError("--half parts the prompts of pairs: it goes with --objective reward")
    if preview:
        typer.echo(console.clean(training.preview(scored, model, preview, settings)))
    elif render_only:
        out = output or Path("train.jsonl")
        summary = training.render(scored, out, settings)
        options.finish(summary, json_, f"{summary.get('written', 0):,} training rows")
    else:
        out = output or Path("policy")
        summary = training.finetune(scored, out, model, settings, hosted)
        name = next(iter(summary.get("rewards", [])), "NAME")
        options.finish(summary, json_, "the policy", f"irlhf sample {out} {scored} -t {name}=0.9")


def _refuse_beside_rounds(objective: Objective, half: str, preview: int, render_only: bool) -> None:
    beside = {"--objective reward": objective == Objective.reward, "--half": bool(half)}
    beside |= {"--preview": bool(preview), "--render-only": render_only}
    for flag, given in beside.items():
        if given:
            raise ConfigError(f"{flag} means nothing to --rounds, which train policies; leave one out")


def _use_of_reward_model(out: Path, summary: Mapping[str, Any]) -> str:
    """Return the command to run next."""
    scorer = out if out.is_absolute() else f"./{out}"
    # A host is paid for every answer, so nobody has measured its accuracy yet.
    measure = "; irlhf eval on the scored pairs then says how often it is right" if "job" in summary else ""
    return f'irlhf score EXAMPLES -r FILE, with scorer: "{scorer}" in it{measure}'
