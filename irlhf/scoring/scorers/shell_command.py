"""A shell command as a scorer: it reads rows as JSONL and prints one line of JSON per row."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from irlhf.core.errors import BackendError, ConfigError
from irlhf.core.example import Example, dumps
from irlhf.scoring.scorers.base import Failure, Reply, Traits, is_number, without_rewards

_GRACE = 2.0  # seconds between SIGTERM and SIGKILL
_SHOWN = 200  # characters of a program's output in a message


class ShellCommand:
    """Runs a shell command in the working directory, once for each pool of rows.

    It reads the rows of the pool from stdin and prints one line of JSON per row to stdout, in order; other output must
    go to stderr. Lines with the row's `id` may be in any order. A line is

        0.5                                   the reward
        {"reward": 0.5}                       numbers by name; `label:` selects one of several
        {"rewards": {"a": 0.5, "b": null}}    the same, separate from other keys of the line
        null, or {"error": "too long"}        no reward, with the reason

    Without `rewards`, the keys of the row itself (its id, its tokens) are not rewards, so that a program may print the
    row with additional numbers. Rows are passed as in the file, but without existing `rewards` and `gold`. The program
    is restarted for each pool, so use a module:callable for a scorer that loads a model. Replies are cached only if
    `revision` identifies the version of the program.
    """

    def __init__(self, command: str, *, revision: str = "") -> None:
        self.command = command.strip()
        if not self.command:
            raise ConfigError("command needs a shell command, as in 'command: python my_scorer.py'")
        self.traits = Traits(identity=f"command {self.command} {revision}" if revision else "", whole_row=True)

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        """Return the program's reply for each example. Raises BackendError if it fails."""
        rows = [without_rewards(example) for example in examples]
        try:
            replies = _parsed(_run(self.command, b"".join(map(dumps, rows))))
            if len(replies) != len(rows):
                raise BackendError(f"{len(replies)} answers for {len(rows)} rows; the program must print one for each")
            answers = _in_order(replies, [example.id for example in examples])
        except BackendError as error:
            raise BackendError(f"command '{_short(self.command)}': {error}") from error
        return [_reply(answer, row) for answer, row in zip(answers, rows, strict=True)]


def _run(command: str, given: bytes) -> bytes:
    """Return the stdout of a command. If we are interrupted, its process group is killed. Raises BackendError."""
    pipe = subprocess.PIPE
    try:
        # In its own session, the process group can be killed and cannot read from the terminal.
        started = subprocess.Popen(command, shell=True, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    except (OSError, ValueError) as error:  # too long, or with a null byte
        raise BackendError(f"it cannot be started ({error})") from error
    with started as running:
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
    return f"it ended with {how}" + (f": {_short(last_line)}" if last_line else ", with nothing on stderr")


def _parsed(out: bytes) -> list[Any]:
    answers = []
    for line in filter(bytes.strip, out.split(b"\n")):
        try:
            answers.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            text = _short(line.decode(errors="replace"))
            raise BackendError(f"'{text}' on stdout is not JSON; print other output to stderr") from error
    return answers


def _in_order(answers: Sequence[Any], ids: Sequence[str]) -> list[Any]:
    """Return the answers in the order of the rows: unchanged or, if they have ids, sorted by these."""
    answer_ids = [str(answer["id"]) if isinstance(answer, dict) and "id" in answer else None for answer in answers]
    if not any(answer is not None for answer in answer_ids):
        return list(answers)
    by_id: dict[str, Any] = {}
    for number, (name, answer) in enumerate(zip(answer_ids, answers, strict=True), 1):
        if name is None:
            raise BackendError(f"answer {number} has no id, but others have one")
        if name in by_id or name not in ids:
            reason = "occurs twice" if name in by_id else "is not the id of a row"
            raise BackendError(f"answer {number}: the id '{_short(name)}' {reason}")
        by_id[name] = answer
    return [by_id[answer] for answer in ids]


def _reply(answer: Any, row: Mapping[str, Any]) -> Reply | Failure:
    """Return the numbers of an answer by name, or a failure."""
    if answer is None:
        return Failure("no reward: null")
    if not isinstance(answer, dict):
        return {"": answer}
    if answer.get("error") and answer["error"] != row.get("error"):
        return Failure(_short(str(answer["error"])))
    if isinstance(rewards := answer.get("rewards"), dict) and rewards:
        return rewards
    numbers = {name: value for name, value in answer.items() if name not in row and is_number(value)}
    return numbers or Failure(
        f"no number in the answer that is not in the row (keys: {_short(', '.join(answer)) or 'none'})"
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
