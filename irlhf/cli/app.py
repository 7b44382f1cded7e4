"""The command line: one thin file per command. Each parses its options, calls a function and reports the result."""

import os
import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer

from irlhf import __version__
from irlhf.cli import eval as eval_command
from irlhf.cli import finetune, init, jobs, plot, prepare, quickstart, reward_model, rounds, sample, score
from irlhf.cli.command import Command, Group
from irlhf.core.errors import ConfigError, IrlhfError, OutputError

_INTERRUPTED = 128 + signal.SIGINT
_PIPE_CLOSED = 128 + signal.SIGPIPE
_UsageError: Any = typer.BadParameter.__base__  # of click, or of typer's copy of it
_AGAIN = "stopped; the same command resumes"


class ErrorReportingGroup(Group):
    """Reports an error that a user can fix as one line on stderr, with its exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options before the command."""
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            raise _usage_exit(error) from error

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            raise _usage_exit(error) from error
        except IrlhfError as error:
            _say_error(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            _say_error(_AGAIN)
            raise typer.Exit(_INTERRUPTED) from error
        except BrokenPipeError as error:
            # The reader of the output has closed it. Python would report that again when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(_PIPE_CLOSED) from error
        except OSError as error:  # refused by the system, such as a name that is too long
            _say_error(f"{error.filename or 'disk'}: {error.strerror or error}")
            raise typer.Exit(OutputError.exit_code) from error


def _usage_exit(error: Any) -> Exception:
    """Print what is wrong on the command line, in one line, and return the exit. A missing command shows the help."""
    problem = " ".join(error.format_message().split()).rstrip(".")
    if not problem:
        return error  # type: ignore[no-any-return]
    below = error.ctx.command_path.removeprefix(error.ctx.find_root().command_path) if error.ctx else ""
    _say_error(f"{problem}; see `irlhf{below} --help`")
    return typer.Exit(ConfigError.exit_code)


app = typer.Typer(
    cls=ErrorReportingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Align a language model by putting the reward in the prompt: score completions, write the scores into"
    " the prompt, fine-tune, then request any reward.",
    epilog="prepare → score → finetune → sample → score → eval → plot: each reads and writes plain files.",
)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"irlhf {__version__}")
        raise typer.Exit


@app.callback()
def _callback(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and stop.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


for name, function, examples in (
    ("prepare", prepare.prepare, prepare.EXAMPLES),
    ("score", score.score, score.EXAMPLES),
    ("finetune", finetune.finetune, finetune.EXAMPLES),
    ("sample", sample.sample, sample.EXAMPLES),
    ("eval", eval_command.evaluate, eval_command.EXAMPLES),
    ("plot", plot.plot, plot.EXAMPLES),
    ("reward-model", reward_model.reward_model, reward_model.EXAMPLES),
    ("rounds", rounds.rounds, rounds.EXAMPLES),
    ("quickstart", quickstart.quickstart, quickstart.EXAMPLES),
    ("init", init.init, init.EXAMPLES),
):
    app.command(name, cls=Command, epilog=examples)(function)
app.add_typer(jobs.app, name="jobs")


def main() -> None:
    """Run the command line. SIGTERM and SIGHUP end it as Ctrl-C does, with complete rows."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    app()


def _stop(number: int, frame: FrameType | None) -> None:
    _say_error(_AGAIN)
    raise SystemExit(128 + number)


def _say_error(text: str) -> None:
    from irlhf.core import console

    console.error(text)
