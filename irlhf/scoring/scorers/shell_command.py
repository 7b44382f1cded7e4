"""A program of yours as a scorer: rows go in as JSONL, a line of JSON comes back for each."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from irlhf.core.errors import BackendError, ConfigError
from irlhf.core.example import Example, dumps
from irlhf.scoring.scorers.base import Failure, Reply, Traits

_JUDGED = ("rewards", "gold")  # what a row may hold from another time
_GRACE = 2.0  # seconds that a program has to end when it is told to
_SHOWN = 200  # characters of what a program says


class ShellCommand:
    """Runs a command of the shell, where irlhf runs, once for each pool of rows.

    It reads the pool's rows on stdin and prints one line of JSON a row on stdout, in their order; all else belongs on
    stderr. Lines that carry the row's `id` may stand in any order. A line is

        0.5                                   the reward
        {"reward": 0.5}                       numbers by their names; `label:` picks one of several
        {"rewards": {"a": 0.5, "b": null}}    the same, apart from all else that the line holds
        null, or {"error": "too long"}        no reward, and why

    Without `rewards`, what the row itself holds (its id, its tokens) is no reward, so that a program may write rows
    back with a number more. Rows go in as they stand in the file, but without the rewards and the gold of another
    time. The program starts anew with each pool, so one that loads a model is better a module:callable, which stays.
    Replies are kept only where `revision` names the state of the program.
    """

    def __init__(self, command: str, *, revision: str = "") -> None:
        self.command = command.strip()
        if not self.command:
            raise ConfigError("command needs what the shell is to run, as in 'command: python my_scorer.py'")
        self.traits = Traits(identity=f"command {self.command} {revision}" if revision else "", whole_row=True)

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        """Return what the program says of each example."""
        rows = [_input_row(example) for example in examples]
        try:
            replies = _parsed(_run(self.command, b"".join(map(dumps, rows))))
            if len(replies) != len(rows):
                raise BackendError(f"{len(replies)} answers to {len(rows)} rows; one each is due")
            answers = _in_order(replies, [example.id for example in examples])
        except BackendError as error:
            raise BackendError(f"command '{_short(self.command)}': {error}") from error
        return [_reply(answer, row) for answer, row in zip(answers, rows, strict=True)]


def _input_row(example: Example) -> dict[str, Any]:
    return {name: value for name, value in example.to_json().items() if name not in _JUDGED}


def _run(command: str, given: bytes) -> bytes:
    """Return what a command prints. It ends with us, and all that it started ends with it. Raises BackendError."""
    pipe = subprocess.PIPE
    try:
        # In a session of its own it can be ended whole, and asks nothing of the terminal.
        begun = subprocess.Popen(command, shell=True, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    except (OSError, ValueError) as error:  # too long, or with a character that no command can hold
        raise BackendError(f"it cannot be started ({error})") from error
    with begun as running:
        try:
            out, stderr = running.communicate(given)
        except BaseException:  # Ctrl-C and SIGTERM too
            _end(running)
            raise
    if running.returncode:
        raise BackendError(_failed(running.returncode, stderr))
    return out


def _end(running: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(running.pid, signal.SIGTERM)
        running.wait(_GRACE)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)


def _failed(code: int, stderr: bytes) -> str:
    last_line = stderr.decode(errors="replace").strip().split("\n")[-1]
    how = f"exit code {code}" if code > 0 else f"signal {-code}"
    return f"it ended with {how}" + (f": {_short(last_line)}" if last_line else ", and said nothing on stderr")


def _parsed(out: bytes) -> list[Any]:
    answers = []
    for line in filter(bytes.strip, out.split(b"\n")):
        try:
            answers.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            text = _short(line.decode(errors="replace"))
            raise BackendError(f"'{text}' on stdout is no JSON; all but the answers belongs on stderr") from error
    return answers


def _in_order(answers: Sequence[Any], ids: Sequence[str]) -> list[Any]:
    """Return the answers in the order of the rows: that in which they came, or that of the ids they carry."""
    carried = [str(answer["id"]) if isinstance(answer, dict) and "id" in answer else None for answer in answers]
    if not any(answer is not None for answer in carried):
        return list(answers)
    by_id: dict[str, Any] = {}
    for number, (name, answer) in enumerate(zip(carried, answers, strict=True), 1):
        if name is None:
            raise BackendError(f"answer {number} has no id, and others have")
        if name in by_id or name not in ids:
            reason = "stands twice" if name in by_id else "is that of no row"
            raise BackendError(f"answer {number}: the id '{_short(name)}' {reason}")
        by_id[name] = answer
    return [by_id[answer] for answer in ids]


def _reply(answer: Any, row: Mapping[str, Any]) -> Reply | Failure:
    """Return the numbers of an answer by their names."""
    if answer is None:
        return Failure("no reward: null")
    if not isinstance(answer, dict):
        return {"": answer}
    if answer.get("error") and answer["error"] != row.get("error"):
        return Failure(_short(str(answer["error"])))
    if isinstance(rewards := answer.get("rewards"), dict) and rewards:
        return rewards
    numbers = {name: value for name, value in answer.items() if name not in row and _is_number(value)}
    return numbers or Failure(f"no number of its own in the answer (keys: {_short(', '.join(answer)) or 'none'})")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
