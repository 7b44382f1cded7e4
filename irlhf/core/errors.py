"""What can go wrong that a user can mend, and the exit code that says so.

IrlhfError
├── DataError      1  a row or a file of data is not what it should be
├── ConfigError    2  an option, a path or a YAML is not what it should be
├── BackendError   3  a model, a server or a scorer failed; trying again may help
└── OutputError    4  the disk refused, or another process is writing the same output

An interruption exits with 130 (Ctrl-C) or 143 (SIGTERM). Each message is one line that says where,
what, and what to do.
"""


class IrlhfError(Exception):
    """Something that a user can mend."""

    exit_code = 1

    def __str__(self) -> str:
        # Names of columns, ids and paths may hold line ends.
        return " ".join(super().__str__().splitlines())


class DataError(IrlhfError):
    """A row or a file of data is not what it should be."""


class ConfigError(IrlhfError):
    """An option, a path or a YAML is not what it should be."""

    exit_code = 2


class BackendError(IrlhfError):
    """A model, a server or a scorer failed; trying again may help."""

    exit_code = 3


class OutputError(IrlhfError):
    """The disk refused, or another process is writing the same output."""

    exit_code = 4
