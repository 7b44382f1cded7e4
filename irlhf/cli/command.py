"""The class of all commands: help that fits 80 columns, and old spellings answered with the new ones."""

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from typer.core import TyperCommand, TyperGroup, TyperOption

from irlhf.cli.old_spellings import current_spelling
from irlhf.core.errors import ConfigError

HELP_PANEL, OPTIONS_PANEL = "Output", "Options"  # in which --help stands


class Command(TyperCommand):
    """A command whose help names values by a word, such as N or FILE, and leaves types and ranges to its sentences."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        # The terminal decides where lines end, not the docstring.
        self.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in (self.help or "").split("\n\n"))

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the arguments and options as the help shows them."""
        return plain(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options. Raises ConfigError for one that has another spelling now."""
        args = [_in_home(argument) for argument in args]
        own = {spelling for option in self.params for spelling in (*option.opts, *option.secondary_opts)}
        if not ctx.resilient_parsing:
            refuse_old(self.name or "", args, own)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help with one blank between its columns."""
        from typer import rich_utils

        rich_utils.STYLE_OPTIONS_TABLE_PADDING = (0, 1, 0, 0)  # type: ignore[assignment]
        super().format_help(ctx, formatter)


def _in_home(argument: str) -> str:
    """Return an argument with `~/` replaced by the home folder; the shell does so only at the beginning of a word."""
    option, sign, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{option}{sign}{os.path.expanduser(value)}" if value.startswith("~/") else argument


class Group(TyperGroup):
    """A group of commands with the same kind of help."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options as the help shows them."""
        return plain(super().get_params(ctx), OPTIONS_PANEL)


def plain(parameters: list[Any], help_panel: str = HELP_PANEL) -> list[Any]:
    """Return parameters whose help shows no types and no ranges; values are checked by the annotations."""
    for parameter in parameters:
        if not isinstance(parameter, TyperOption):
            parameter.display_type_rich = lambda ctx: ""
            continue
        parameter.min = parameter.max = None
        if parameter.is_flag:
            parameter.metavar = ""
        if parameter.name == "help":
            parameter.help = "Show this message and stop."
            parameter.rich_help_panel = help_panel
    return parameters


def refuse_old(command: str, arguments: Sequence[str], own: set[str]) -> None:
    """Raise ConfigError for an option, or a value of one, that an earlier version of a command had."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    words = [part for argument in arguments[:end] for part in argument.split("=", 1)]
    for word, following in pairwise([*words, ""]):
        for old in (f"{word} {following}", word):
            new = current_spelling(command, old)
            if new and old not in own:
                raise ConfigError(f"irlhf {command} {old} is now: irlhf {new}")
