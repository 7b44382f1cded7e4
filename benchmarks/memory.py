"""How much memory and time do `irlhf score` and `irlhf sample` take from a thousand to a million rows?

    python benchmarks/memory.py [--most 1000000] -o RESULT.json

Each load runs in a process of its own: the peak is that process's resident memory (Linux). The scorer is a
function that counts words, and the engine of `sample` a stand-in that answers every prompt alike, so that what is
measured is reading, checking, writing and remembering. Rows are of 400 bytes, each with a prompt of its own.
`killed` is a sample that was stopped in the middle and run again: peak and seconds are the second process's.

Every size is written when it is done, and the same command goes on behind it. On two idle cores a million rows take
a minute to score, two to sample and three for `killed`, and two gigabytes in the folder for temporary files; each
smaller size takes a tenth of that. `python docs/generate.py` draws docs/memory.png from docs/results/bench-memory.json.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

from irlhf.core.console import be_quiet
from irlhf.core.errors import IrlhfError
from irlhf.policy.policy_file import Policy, PolicyReward, write_policy
from irlhf.policy.scales import Scale
from irlhf.policy.templates import find_template
from irlhf.sampling.sample import sample
from irlhf.sampling.settings import SampleSettings
from irlhf.scoring.score import score

COUNTED = "def words(examples): return [len(one.completion.split()) for one in examples]\n"
REWARDS = "rewards: {words: {scorer: 'counted:words'}}\n"
LOADS = {"score": ("score", False), "sample": ("sample", False), "killed": ("sample", True)}  # command, killed
TARGETS = ("words=0:1:0.5",)  # three samples a prompt


class Answer(NamedTuple):
    """What an engine says of one completion."""

    text: str
    finish: str = "stop"
    tokens: int = 41
    entropy: float = 1.0
    logprob: float = -40.0
    reference: float | None = None


class Killed(IrlhfError):
    """Stops a run in the middle."""


class Stub:
    """An engine that answers every prompt alike."""

    left = -1  # samples until it stops; below 0 never

    def __init__(self, *given: Any) -> None:
        pass

    def __call__(self, asks: Sequence[Any], advance: Callable[[int], None]) -> list[Any]:
        """Return one completion for each ask."""
        Stub.left -= len(asks)
        if -len(asks) <= Stub.left < 0:
            raise Killed("in the middle")
        advance(len(asks))
        return [Answer("a word " * 20) for _ in asks]


def make(folder: Path, rows: int) -> None:
    """Write what a run needs into its folder."""
    with (folder / "in.jsonl").open("w") as stream:
        for n in range(rows):
            row = {"id": f"row-{n:08}", "prompt": f"Question {n}? {'why ' * 40}", "completion": "a word " * 20}
            stream.write(json.dumps(row) + "\n")
    (folder / "counted.py").write_text(COUNTED)
    (folder / "rewards.yaml").write_text(REWARDS)
    (folder / "policy").mkdir()
    card = PolicyReward("words", 1.0, Scale("linear", "higher", (0.0, 1.0), (0.0, 1.0)), 0.0, 1.0, {})
    write_policy(folder / "policy", Policy("none", find_template("reward-end"), (card,), ((0.5,),), 512))


def run(command: str, folder: Path) -> float:
    """Run one command in this process; return its seconds."""
    started = time.perf_counter()
    if command == "score":
        score(folder / "in.jsonl", folder / "rewards.yaml", folder / "out.jsonl")
    else:
        with patch.dict(sys.modules, {"irlhf.sampling.local": SimpleNamespace(LocalEngine=Stub)}):
            settings = SampleSettings(TARGETS, split="all")
            sample(folder / "policy", folder / "in.jsonl", folder / "out.jsonl", settings)
    return time.perf_counter() - started


def child(command: str, folder: Path, killed_at: int) -> None:
    """Run one command and print what it took."""
    Stub.left = killed_at or -1
    be_quiet(True)
    seconds = run(command, folder)
    # What getrusage says is never below the parent's own memory.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(json.dumps({"seconds": round(seconds, 2), "peak_mib": round(int(peak) / 1024, 1)}))


def measured(command: str, rows: int, killed: bool) -> dict[str, float]:
    """Return peak and seconds of one load in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), rows)
        asked = [sys.executable, __file__, "--child", command, name]
        if killed:
            half = 3 * rows // 2
            subprocess.run([*asked, str(half)], capture_output=True, check=False)
        done = subprocess.run([*asked, "0"], stdout=subprocess.PIPE, check=True, text=True)
        found: dict[str, float] = json.loads(done.stdout.split("\n")[-2])
        return found


def main() -> None:
    """Measure every load."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
        return
    from side_by_side import finish, options

    parser = options(__doc__ or "")
    parser.add_argument("--most", type=int, default=10**6)
    given = parser.parse_args()
    sizes = [size for size in (10**3, 10**4, 10**5, 10**6) if size <= given.most]
    found: dict[str, dict[str, Any]] = {name: {} for name in LOADS}
    if given.output.exists():
        found = {name: one for name, one in json.loads(given.output.read_text()).items() if name in LOADS}
    for size in sizes:
        for name, (command, killed) in LOADS.items():
            if f"{size}" not in found[name]:
                found[name][f"{size}"] = measured(command, size, killed)
                finish(given.output, found)
    smallest, largest = f"{sizes[0]}", f"{sizes[-1]}"
    for one in found.values():
        grown = (one[largest]["peak_mib"] - one[smallest]["peak_mib"]) * 2**20 / (sizes[-1] - sizes[0])
        one["bytes a row"] = round(grown, 1)
    finish(given.output, found)


if __name__ == "__main__":
    main()
