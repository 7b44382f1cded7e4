"""Errors that a user can fix, each with its exit code.

IrlhfError
├── DataError      1  a row or a data file is invalid
├── ConfigError    2  an option, a path or a YAML file is invalid
├── BackendError   3  a model, a server or a scorer failed; a retry may help
└── OutputError    4  the output cannot be written, or another process is writing it

An interrupted command exits with 130 (Ctrl-C) or 143 (SIGTERM). Each message is one line: the place, the problem and
the fix.
"""


class IrlhfError(Exception):
    """An error that a user can fix."""

    exit_code = 1

    def __str__(self) -> str:
        # Column names, ids and paths may contain line breaks.
        return " ".join(super().__str__().splitlines())


class DataError(IrlhfError):
    """A row or a data file is invalid."""


class ConfigError(IrlhfError):
    """An option, a path or a YAML file is invalid."""

    exit_code = 2


class BackendError(IrlhfError):
    """A model, a server or a scorer failed; a retry may help."""

    exit_code = 3


class OutputError(IrlhfError):
    """The output cannot be written, or another process is writing it."""

    exit_code = 4
