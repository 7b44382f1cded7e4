"""How fast does `irlhf prepare` read pairs like Anthropic's, beside a plain loop and a map of `datasets`?

    python benchmarks/prepare.py [--rows 1000000] [--repeats 3] [--most 1000000] -o RESULT.json

Pairs of random words are made, with the lengths, the turns and the dirt of HH. Every arm is a process as a user
starts it, from its start to its end: `irlhf prepare`, and the peers of benchmarks/hh_peers.py. They take turns, all
rows that they write must be equal as JSON, and beside the clock stands the processor time of all their processes,
which a busy machine disturbs less. The arm `datasets` needs `pip install 'irlhf[bench]'` and is left out without.

Then each arm runs once with 10,000, 100,000 and, unless `--most` is 100000, a million pairs, and its peak is what all
its processes hold together: the sum of their own peaks of resident memory (Linux), so that shared pages count in each.

A million pairs are 1.7 GB; the folder for temporary files must hold six times as much.
"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from side_by_side import finish, measure, options, spread, told

SIZES = (10**4, 10**5, 10**6)
_IRLHF = [sys.executable, "-P", "-m", "irlhf", "prepare"]
_PEER = [sys.executable, str(Path(__file__).with_name("hh_peers.py"))]
_POLL = 0.05  # seconds between two looks at the memory


class Run(NamedTuple):
    """What one run of an arm took."""

    seconds: float
    cpu: float  # seconds of processor time, of all its processes
    peak_mib: float


def pairs(rows: int) -> Iterator[dict[str, str]]:
    """Yield pairs as HH's: a median of some 700 characters a side, one to six questions, and a little of every dirt."""
    rng = random.Random(0)
    sentences = [_sentence(rng) for _ in range(20_000)]

    def text(middle: float) -> str:
        return " ".join(rng.choices(sentences, k=max(1, round(rng.lognormvariate(middle, 0.7)))))

    for _ in range(rows):
        turns = rng.choices((1, 2, 3, 4, 5, 6), (29, 26, 25, 15, 3, 2))[0]
        asked = [f"\n\nHuman: {text(0.3)}" for _ in range(turns)]
        prompt = "".join(f"{one}\n\nAssistant: {text(0.7)}" for one in asked[1:]) + asked[0]
        if rng.random() < 0.003:
            prompt += f"\n\nHuman: {text(0.3)}"
        differs = "?" if rng.random() < 0.003 else ""
        chosen, rejected = (text(0.8) if rng.random() > 0.001 else " " for _ in range(2))
        if rng.random() < 0.0005:
            rejected = chosen
        yield {
            "chosen": f"{prompt}\n\nAssistant: {chosen}",
            "rejected": f"{prompt}{differs}\n\nAssistant: {rejected}",
        }


def _sentence(rng: random.Random) -> str:
    words = ["".join(rng.choices("eeetaoinshrdlucm", k=rng.choice((2, 3, 3, 4, 5, 7, 9)))) for _ in range(16)]
    if rng.random() < 0.2:
        words[rng.randrange(6)] = "don\u2019t"
    if rng.random() < 0.0002:
        words[rng.randrange(6)] = "<s>"
    return " ".join(words[: rng.randint(6, 16)]).capitalize() + rng.choice((".", ".", "?", "!\n\n"))


def make(folder: Path, rows: int) -> Path:
    """Write the pairs."""
    source = folder / "pairs.jsonl"
    with source.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs(rows))
    return source


def run(arm: str, source: Path) -> Run:
    """Run one arm to its end; what it writes lies in a folder called after it, alone."""
    folder = source.parent / arm
    subprocess.run(["rm", "-rf", folder], check=True)
    folder.mkdir()
    ends = [str(source), "-o", str(folder / "out.jsonl")] if arm == "irlhf" else [arm, source, folder / "out.jsonl"]
    command = [*(_IRLHF if arm == "irlhf" else _PEER), *map(str, ends)]
    started = time.perf_counter()
    begun = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peaks: dict[int, int] = {}
    most = 0
    while not (ended := os.wait4(begun.pid, os.WNOHANG))[0]:
        peaks = {one: max(peaks.get(one, 0), _peak(one)) for one in _family(begun.pid)}
        most = max(most, sum(peaks.values()))
        time.sleep(_POLL)
    seconds = time.perf_counter() - started
    begun.returncode = os.waitstatus_to_exitcode(ended[1])
    if begun.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {begun.returncode}")
    return Run(round(seconds, 2), round(ended[2].ru_utime + ended[2].ru_stime, 2), round(most / 1024, 1))


def _family(parent: int) -> list[int]:
    """Return a process and all below it."""
    found = [parent]
    for one in found:
        with suppress(OSError):
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return found


def _peak(process: int) -> int:
    """Return the most resident memory that a process had so far, in KiB."""
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
        return int(found[1]) if found else 0
    return 0


def compare(source: Path, arms: list[str]) -> int:
    """Return the number of rows that the arms wrote. Exits where they are not equal."""
    number = 0
    with ExitStack() as stack:
        files = [stack.enter_context((source.parent / arm / "out.jsonl").open(encoding="utf-8")) for arm in arms]
        for number, lines in enumerate(zip_longest(*files, fillvalue="{}"), 1):
            # `datasets` writes null for what a row does not have.
            rows = [{name: value for name, value in json.loads(line).items() if value is not None} for line in lines]
            if any(row != rows[0] for row in rows):
                raise SystemExit(f"row {number} is not the same in {', '.join(arms)}")
    return number


def speed(arms: list[str], rows: int, repeats: int) -> dict[str, Any]:
    """Return how fast the arms are, taking turns."""
    took: dict[str, list[Run]] = {arm: [] for arm in arms}

    def timed(arm: str, source: Path) -> float:
        took[arm].append(run(arm, source))
        return took[arm][-1].seconds

    with tempfile.TemporaryDirectory() as folder:
        source = make(Path(folder), rows)
        seconds = measure({arm: lambda arm=arm: timed(arm, source) for arm in arms}, repeats)
        written = compare(source, arms)
    cpu = {arm: [one.cpu for one in found[1:]] for arm, found in took.items()}
    against = {}
    for arm in arms[1:]:
        each = zip(cpu["irlhf"], cpu[arm], strict=True)
        ratios = {"processor ratio": spread([theirs / mine for mine, theirs in each])}
        against[f"against {arm}"] = {**told({name: seconds[name] for name in ("irlhf", arm)}, rows, "irlhf"), **ratios}
    processor = {arm: spread(found) for arm, found in cpu.items()}
    return {"data": f"{rows:,} pairs like HH's", "written": written, "processor seconds": processor, **against}


def memory(arms: list[str], most: int) -> dict[str, Any]:
    """Return what the arms take along the number of rows."""
    found: dict[str, dict[str, Any]] = {arm: {} for arm in arms}
    sizes = [size for size in SIZES if size <= most]
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            source = make(Path(folder), size)
            for arm in arms:
                found[arm][str(size)] = run(arm, source)._asdict()
            compare(source, arms)
    return {arm: {**one, "bytes a pair": growth(one)} for arm, one in found.items()}


def growth(peaks: Mapping[str, Mapping[str, float]]) -> float:
    """Return the bytes that a further pair takes at the two largest sizes, both of them work for several processes."""
    fewer, more = sorted(peaks, key=int)[-2:]
    return round((peaks[more]["peak_mib"] - peaks[fewer]["peak_mib"]) * 2**20 / (int(more) - int(fewer)), 1)


def main() -> None:
    """Measure speed, then memory."""
    parser = options(__doc__ or "")
    parser.add_argument("--rows", type=int, default=10**6)
    parser.add_argument("--most", type=int, default=10**6, choices=SIZES[1:])
    given = parser.parse_args()
    arms = ["irlhf", "plain", "datasets"]
    if not find_spec("datasets"):
        print("datasets is not installed: its arm is left out", file=sys.stderr)
        arms.pop()
    found: Mapping[str, Any] = speed(arms, given.rows, given.repeats)
    finish(given.output, found)
    finish(given.output, {**found, "memory": memory(arms, given.most)})


if __name__ == "__main__":
    main()
