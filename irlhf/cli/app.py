"""The command line: one thin file per command, each of which parses, hands over and says what was done."""

import os
import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from irlhf import __version__
from irlhf.cli import eval as eval_command
from irlhf.cli import finetune, init, plot, prepare, quickstart, sample, score
from irlhf.core.errors import IrlhfError, OutputError

_INTERRUPTED = 128 + signal.SIGINT
_PIPE_CLOSED = 128 + signal.SIGPIPE
_AGAIN = "stopped; the same command goes on from here"


class ErrorReportingGroup(TyperGroup):
    """Shows what a user can mend as one line on stderr, with its exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except IrlhfError as error:
            _say_error(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            _say_error(_AGAIN)
            raise typer.Exit(_INTERRUPTED) from error
        except BrokenPipeError as error:
            # Whoever read our output has enough. Python would complain again when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(_PIPE_CLOSED) from error
        except OSError as error:  # what the system refused where nobody foresaw it, such as a name too long
            _say_error(f"{error.filename or 'disk'}: {error.strerror or error}")
            raise typer.Exit(OutputError.exit_code) from error


app = typer.Typer(
    cls=ErrorReportingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Align a language model by putting the reward in the prompt: score completions, write the scores into"
    " the prompt, fine-tune, then ask for any reward you like.",
    epilog="prepare → score → finetune → sample → score → eval → plot, each from plain files to plain files.",
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


app.command("prepare", epilog=prepare.EXAMPLES)(prepare.prepare)
app.command("score", epilog=score.EXAMPLES)(score.score)
app.command("finetune", epilog=finetune.EXAMPLES)(finetune.finetune)
app.command("sample", epilog=sample.EXAMPLES)(sample.sample)
app.command("eval", epilog=eval_command.EXAMPLES)(eval_command.evaluate)
app.command("plot", epilog=plot.EXAMPLES)(plot.plot)
app.command("quickstart", epilog=quickstart.EXAMPLES)(quickstart.quickstart)
app.command("init", epilog=init.EXAMPLES)(init.init)


def main() -> None:
    """Run the command line; SIGTERM and SIGHUP leave the rows so far as whole as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    app()


def _stop(number: int, frame: FrameType | None) -> None:
    _say_error(_AGAIN)
    raise SystemExit(128 + number)


def _say_error(text: str) -> None:
    from irlhf.core import console

    console.error(text)
