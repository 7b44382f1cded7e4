"""Write the tables of docs/*.md from the result files in docs/results/.

    python docs/generate.py          write them
    python docs/generate.py --check  fail where a page says something else than the results
    python docs/generate.py --keep eval.json NAME
                                     keep an evaluation, all but its single points, as docs/results/NAME.json

A table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
RESULTS = DOCS / "results"
PAGES = ("quickstart.md", "hh.md", "evaluation.md")
_TRACKING = "| policy | reward | within prompts | pooled | mean error | floors: permuted, constant | gold within | n |"
_TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Write or check every page, or keep a result; return the exit code."""
    if sys.argv[1:2] == ["--keep"]:
        _keep(Path(sys.argv[2]), sys.argv[3])
        return 0
    stale = [page for page in PAGES if not _page(DOCS / page, write="--check" not in sys.argv)]
    for page in stale if "--check" in sys.argv else ():
        print(f"docs/{page} is not what docs/results/ says; run `make docs`", file=sys.stderr)
    return 1 if stale and "--check" in sys.argv else 0


def _keep(source: Path, name: str) -> None:
    evaluation = json.loads(source.read_text(encoding="utf-8"))
    for policy in evaluation["policies"].values():
        for found in policy["rewards"].values():
            del found["points"]
    (RESULTS / f"{name}.json").write_text(json.dumps(evaluation, indent=1) + "\n", encoding="utf-8")


def _page(path: Path, write: bool) -> bool:
    """Return whether the page says already what the results say; write it where asked to."""
    before = path.read_text(encoding="utf-8")
    after = _TABLE.sub(lambda found: found[1] + "\n".join(TABLES[found[2]]()) + "\n" + found[3], before)
    if write and after != before:
        path.write_text(after, encoding="utf-8")
    return after == before


def _seeds() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(RESULTS.glob("quickstart-*.json")):
        yield path.stem.removeprefix("quickstart-"), json.loads(path.read_text(encoding="utf-8"))


def _policies(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    order = ["", "plain", "chosen", "top"]
    return sorted(evaluation["policies"].values(), key=lambda policy: order.index(policy["baseline"]))


def quickstart_tracking() -> Iterator[str]:
    """Each seed, policy and reward: how well given follows asked."""
    yield f"| seed {_TRACKING}"
    yield "|---|---|---|---|---|---|---|---|---|"
    for seed, evaluation in _seeds():
        for policy in _policies(evaluation):
            for name, found in policy["rewards"].items():
                yield f"| {seed} | {policy['name']} | {name} | {_tracking(found)} |"


def quickstart_mix() -> Iterator[str]:
    """Each seed and arm: the weighted reward that asking for a mix brings."""
    yield "| seed | weights kindness : detail | arm | weighted reward | kindness | detail | n |"
    yield "|---|---|---|---|---|---|---|"
    for seed, evaluation in _seeds():
        for mix in evaluation["tradeoff"]:
            told = " : ".join(f"{mix['weights'].get(name, 0):g}" for name in ("kindness", "detail"))
            for arm in sorted(mix["arms"], key=lambda arm: bool(arm["baseline"])):
                each = [arm["rewards"].get(name) for name in ("kindness", "detail")]
                numbers = " | ".join(f"{one['value']:+.2f}" if one else "" for one in each)
                yield f"| {seed} | {told} | {arm['name']} | {_shown(arm['weighted'])} | {numbers} | {arm['n']:,} |"


def hh_tracking() -> Iterator[str]:
    """How well the asked length is followed on HH, with and without reward lines."""
    yield _TRACKING
    yield "|---|---|---|---|---|---|---|---|"
    for policy in _policies(json.loads((RESULTS / "hh.json").read_text(encoding="utf-8"))):
        for name, found in policy["rewards"].items():
            yield f"| {policy['name']} | {name} | {_tracking(found)} |"


def coverage() -> Iterator[str]:
    """How often intervals hold the truth, by the number of prompts."""
    result = json.loads((RESULTS / "coverage.json").read_text(encoding="utf-8"))
    by_prompts = result["coverage"]
    yield f"| of {result['studies']:,} studies | {' | '.join(f'{prompts} prompts' for prompts in by_prompts)} |"
    yield "|---" * (len(by_prompts) + 1) + "|"
    for name in result["truth"]:
        yield f"| {name} | {' | '.join(f'{100 * shares[name]:.1f}%' for shares in by_prompts.values())} |"


def _tracking(found: dict[str, Any]) -> str:
    error = found["error"]
    gold = _shown(found["gold"]["within"]) if "gold" in found else "–"
    floors = f"{error['floor_permuted']:.3f}, {error['floor_constant']:.3f}"
    figures = [found["within"]["spearman"], found["pooled"]["spearman"], error["mean_absolute"]]
    told = " | ".join([_shown(figures[0]), _shown(figures[1]), _shown(figures[2], 3)])
    return f"{told} | {floors} | {gold} | {found['n']:,} of {found['prompts']}"


def _shown(figure: dict[str, float], digits: int = 2) -> str:
    value, low, high = (f"{figure[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "quickstart-tracking": quickstart_tracking,
    "quickstart-mix": quickstart_mix,
    "hh-tracking": hh_tracking,
    "coverage": coverage,
}

if __name__ == "__main__":
    sys.exit(main())
