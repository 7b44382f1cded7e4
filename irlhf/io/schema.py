"""Describe why a file does not fit its pydantic model."""

from pydantic import ValidationError


def first_problem(error: Exception) -> str:
    """Return the first problem of an error in one line, with its key if there is one."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    return f"{'.'.join(map(str, first['loc']))}: {message}" if first["loc"] else message
