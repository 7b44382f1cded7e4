"""irlhf jobs."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from irlhf.cli import options
from irlhf.cli.command import Command, Group
from irlhf.training.hosted.settings import HostedSettings

EXAMPLES = """Examples:

irlhf jobs list

irlhf jobs status policy

irlhf jobs cancel policy

irlhf jobs resubmit policy --price-per-mtok 3

irlhf jobs adopt policy ftjob-123

irlhf jobs deployed policy my-deployment"""

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Show, cancel, resubmit or adopt the job of a model that a host trains.",
    epilog=EXAMPLES,
)

Output = Annotated[
    Path, typer.Argument(help="Output folder of irlhf finetune or irlhf reward-model.", metavar="POLICY")
]
Host = Annotated[
    str,
    options.server_option("--host", metavar="FILE", help="YAML file of the host, if the job was begun with one."),
]


@app.command("list", cls=Command)
def list_jobs(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders to search. \\[the current folder]", metavar="FOLDERS")
    ] = None,
    json_: options.Json = False,
) -> None:
    """List the jobs that the output folders record, without a request to a host."""
    from irlhf.training.hosted.jobs import recorded_jobs

    rows = [row for folder in folders or [Path()] for row in recorded_jobs(folder)]
    if json_:
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    for row in rows:
        typer.echo("\t".join((row["output"], row["job"] or "no job yet", row["state"], row["base_url"])))


@app.command("status", cls=Command)
def status(
    output: Output,
    host: Host = "",
    api_key_env: options.ApiKeyEnv = "",
    json_: options.Json = False,
) -> None:
    """Ask the host for the status of a job, its last events and the name of its model."""
    from irlhf.core import console
    from irlhf.training.hosted.jobs import job_status

    result = job_status(output, HostedSettings(host=host, api_key_env=api_key_env))
    if json_:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    details = [f"{name}: {result[name]}" for name in ("model", "problem") if result.get(name)]
    lines = [f"job {result['job'] or 'none'} at {result['base_url']}: {result['status']}", *details]
    for line in [*lines, *result.get("events", ())]:
        typer.echo(console.clean(str(line)))


@app.command("cancel", cls=Command)
def cancel(
    output: Output,
    host: Host = "",
    api_key_env: options.ApiKeyEnv = "",
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Cancel a job; what it has cost so far is not returned."""
    from irlhf.core import console
    from irlhf.training.hosted.jobs import cancel_job

    console.be_quiet(quiet)
    _finish(cancel_job(output, HostedSettings(host=host, api_key_env=api_key_env)), json_)


@app.command("resubmit", cls=Command)
def resubmit(
    output: Output,
    host: Host = "",
    api_key_env: options.ApiKeyEnv = "",
    price_per_mtok: options.Price = 0.0,
    max_spend: options.MaxSpend = 0.0,
    yes: options.Yes = False,
    no_wait: options.NoWait = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Pay for another job after one that failed, was cancelled or was never made, and wait for it.

    Run it in the folder in which irlhf finetune ran: the job trains on the same rows
    with the same settings, which POLICY.run.json records.
    """
    from irlhf.core import console
    from irlhf.training.hosted.jobs import resubmit_job

    console.be_quiet(quiet)
    hosted = HostedSettings(
        host=host,
        api_key_env=api_key_env,
        price=price_per_mtok,
        max_spend=max_spend,
        yes=yes,
        wait=not no_wait,
    )
    _finish(resubmit_job(output, hosted), json_)


@app.command("adopt", cls=Command)
def adopt(
    output: Output,
    job: Annotated[str, typer.Argument(help="Id of the job, as the page of the host shows it.", metavar="ID")],
    host: Host = "",
    api_key_env: options.ApiKeyEnv = "",
    no_wait: options.NoWait = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Take a job at the host for the job of an output, and wait for it.

    Some hosts list no jobs. If the answer to a submission is lost there, look at the
    page of the host, and name the job if it is there.
    """
    from irlhf.core import console
    from irlhf.training.hosted.jobs import adopt_job

    console.be_quiet(quiet)
    hosted = HostedSettings(host=host, api_key_env=api_key_env, wait=not no_wait)
    _finish(adopt_job(output, job, hosted), json_)


@app.command("deployed", cls=Command)
def deployed(
    output: Output,
    name: Annotated[str, typer.Argument(help="Name under which the model is deployed.", metavar="NAME")],
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Record the name of a deployment, for hosts that sample only deployed models."""
    from irlhf.core import console
    from irlhf.training.hosted.jobs import record_deployment

    console.be_quiet(quiet)
    _finish(record_deployment(output, name), json_)


def _finish(summary: dict[str, Any], as_json: bool) -> None:
    options.finish(summary, as_json, "the model")
