"""Write the tables of docs/*.md, and some pictures, from the result files in docs/results/.

    python docs/generate.py          write them
    python docs/generate.py --check  fail where a page says something else than the results
    python docs/generate.py --keep FILE NAME
                                     keep an eval.json, or the results.jsonl of a study, as docs/results/NAME.json(l),
                                     all but single points and curves

A table, and what is said of it, stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asking
import online
import rewards
import steering
from asking import shown as _shown

DOCS = Path(__file__).parent
RESULTS = DOCS / "results"
PAGES = (
    "quickstart.md",
    "training.md",
    "steering-samples.md",
    "asking.md",
    "reward-models.md",
    "online.md",
    "hh.md",
    "evaluation.md",
    "benchmarks.md",
)
# A result, and the function of pictures.py that draws it.
_PICTURES = {
    "bench-memory.json": "memory",
    "asking-reach.jsonl": "asking_reach",
    "quickstart.jsonl": "quickstart_tradeoff",
    "online-rounds.jsonl": "online_rounds",
    "steering-tenths.jsonl": "steering_target_actual",
}
_UNITS = {
    "finetune": "finetune (completion tokens)",
    "prepare": "prepare (pairs)",
    "sample": "sample (tokens)",
    "score": "score (texts)",
}
_TRACKING = "| policy | reward | within prompts | pooled | mean error | floors: permuted, constant | gold within | n |"
_SHOWN_FRONTS = ("policy", "plain", "chosen-6", "top-6")  # at equal completion tokens
_TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Write or check every page, or keep a result; return the exit code."""
    if unknown := [argument for argument in sys.argv[1:2] if argument not in ("--check", "--keep")]:
        print(__doc__)
        return 0 if unknown[0] in ("-h", "--help") else 2
    if sys.argv[1:2] == ["--keep"]:
        _keep(Path(sys.argv[2]), sys.argv[3])
        return 0
    stale = [page for page in PAGES if not _page(DOCS / page, write="--check" not in sys.argv)]
    for result in _PICTURES if "--check" not in sys.argv else ():
        _draw(result)
    for page in stale if "--check" in sys.argv else ():
        print(f"docs/{page} is not what docs/results/ says; run `make docs`", file=sys.stderr)
    return 1 if stale and "--check" in sys.argv else 0


def _draw(result: str) -> None:
    """Draw the picture of a result that is there."""
    if (RESULTS / result).exists():
        import pictures

        name = _PICTURES[result]
        (DOCS / f"{name.replace('_', '-')}.png").write_bytes(getattr(pictures, name)(RESULTS / result))


def _keep(source: Path, name: str) -> None:
    """Keep what tables need of an evaluation or of a study's rows, in the order of their cells."""
    lines = source.read_text(encoding="utf-8").splitlines() if source.suffix == ".jsonl" else []
    if not lines:
        kept = _lean(json.loads(source.read_text(encoding="utf-8")))
        (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        return
    rows = sorted((_lean(json.loads(line)) for line in lines), key=lambda row: json.dumps(row["cell"]))
    (RESULTS / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _lean(tree: Any) -> Any:
    """Return results without single points and curves, with numbers of six digits and files without their folders."""
    if isinstance(tree, dict):
        return {key: _lean(value) for key, value in tree.items() if key not in ("points", "curve")}
    if isinstance(tree, list):
        return [_lean(value) for value in tree]
    if isinstance(tree, str) and tree.startswith("/"):
        return Path(tree).name
    return float(f"{tree:.6g}") if isinstance(tree, float) else tree


def _page(path: Path, write: bool) -> bool:
    """Return whether the page says already what the results say; write it where asked to."""
    before = path.read_text(encoding="utf-8")
    after = _TABLE.sub(lambda found: found[1] + "\n".join(TABLES[found[2]]()) + "\n" + found[3], before)
    if write and after != before:
        path.write_text(after, encoding="utf-8")
    return after == before


def _seeds() -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each seed of the quickstart's study with its evaluations by name."""
    for line in (RESULTS / "quickstart.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield row["cell"]["seed"], row["results"]


def _policies(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(evaluation["policies"].values(), key=lambda policy: bool(policy["baseline"]))


def _even(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return what each arm brought when asked for both rewards alike, by the arm's name."""
    mix = next(one for one in evaluation["tradeoff"] if one["weights"] == {"kindness": 1, "detail": 1})
    return {arm["name"]: arm for arm in mix["arms"]}


def _difference(evaluation: dict[str, Any], against: str) -> dict[str, float]:
    """Return the paired difference in weighted reward between the policy and an arm, at even weights."""
    found = next(one for one in evaluation["comparisons"] if one["against_name"] == against)
    wanted = "1*kindness + 1*detail"
    difference: dict[str, float] = next(
        one["difference"] for one in found["figures"] if (one["figure"], one["reward"]) == ("weighted", wanted)
    )
    return difference


def quickstart_tracking() -> Iterator[str]:
    """Tracking of each policy and reward, by seed."""
    yield f"| seed {_TRACKING}"
    yield "|---|---|---|---|---|---|---|---|---|"
    for seed, results in _seeds():
        for policy in _policies(results["quickstart"]):
            for name, found in policy["rewards"].items():
                yield f"| {seed} | {policy['name']} | {name} | {_tracking(found)} |"


def quickstart_mix() -> Iterator[str]:
    """Weighted reward and each reward by seed, weighting and arm."""
    yield "| seed | weights kindness : detail | arm | weighted reward | kindness | detail | n |"
    yield "|---|---|---|---|---|---|---|"
    for seed, results in _seeds():
        for mix in results["quickstart"]["tradeoff"]:
            told = " : ".join(f"{mix['weights'].get(name, 0):g}" for name in ("kindness", "detail"))
            for arm in sorted(mix["arms"], key=lambda arm: bool(arm["baseline"])):
                each = [arm["rewards"].get(name) for name in ("kindness", "detail")]
                numbers = " | ".join(f"{one['value']:+.2f}" if one else "" for one in each)
                yield f"| {seed} | {told} | {arm['name']} | {_shown(arm['weighted'])} | {numbers} | {arm['n']:,} |"


def quickstart_baselines() -> Iterator[str]:
    """Weighted reward at even weights of policy and baselines, at equal tokens and at the best epochs, by seed."""
    yield "| seed | arm | at equal completion tokens | policy minus arm | at its best epochs | policy minus arm |"
    yield "|---|---|---|---|---|---|"
    for seed, results in _seeds():
        arms, chosen = _even(results["test"]), _even(results["validation"])
        yield f"| {seed} | policy | {_shown(arms['policy']['weighted'])} | – | – | – |"
        for kind in ("plain", "chosen", "top"):
            names = {epochs: kind if (kind, epochs) == ("plain", 6) else f"{kind}-{epochs}" for epochs in (3, 6, 12)}
            best = max(names, key=lambda epochs: float(chosen[names[epochs]]["weighted"]["value"]))
            told = [
                f"{_shown(arms[names[epochs]]['weighted'])} | {_shown(_difference(results['test'], names[epochs]))}"
                for epochs in (6, best)
            ]
            yield f"| {seed} | {kind} | {told[0]} | {best} epochs: {told[1]} |"


def quickstart_best_of() -> Iterator[str]:
    """Weighted reward of one sample and of the best of four, with and without reward lines, by seed."""
    yield "| seed | arm | weighted reward, weights 1 : 1 | tokens drawn per kept sample | n |"
    yield "|---|---|---|---|---|"
    for seed, results in _seeds():
        costs = {one["name"]: one["cost"]["tokens"] for one in results["best"]["policies"].values()}
        arms = _even(results["best"])
        kept = "policy, best of 4", "plain, best of 4"
        for name in ("policy", kept[0], "plain", kept[1]):
            arm = arms[name]
            # The tokens of four samples, and a quarter of it for one: the samples are the same.
            tokens = costs[name] if name in kept else costs[f"{name}, best of 4"] / 4
            yield f"| {seed} | {name} | {_shown(arm['weighted'])} | {tokens:.0f} | {arm['n']:,} |"


def quickstart_nearest_of() -> Iterator[str]:
    """Error of one sample and of the nearest of four, with and without reward lines, by seed."""
    yield "| seed | arm | within prompts | mean error | n |"
    yield "|---|---|---|---|---|"
    for seed, results in _seeds():
        found = {one["name"]: one["rewards"].get("kindness") for one in results["best"]["policies"].values()}
        for name in ("policy", "policy, nearest of 4", "plain", "plain, nearest of 4"):
            one = found[name]
            figures = _shown(one["within"]["spearman"]), _shown(one["error"]["mean_absolute"], 3)
            yield f"| {seed} | {name} | {' | '.join(figures)} | {one['n']:,} of {one['prompts']} |"


def quickstart_price() -> Iterator[str]:
    """Entropy, KL from the policy without reward lines, length and diversity, by seed."""
    yield "| seed | policy | entropy, nats per token | KL, nats per completion | tokens | distinct-1 | distinct-2 |"
    yield "|---|---|---|---|---|---|---|"
    for seed, results in _seeds():
        for policy in results["test"]["policies"].values():
            if policy["name"] in ("policy", "plain"):
                kl = _shown(policy["kl"], 1) if isinstance(policy["kl"], dict) else "–"
                distinct = " | ".join(
                    f"{policy['diversity'][name]['value']:.3f}" for name in ("distinct_1", "distinct_2")
                )
                tokens = _shown(policy["length"]["tokens"], 1)
                yield f"| {seed} | {policy['name']} | {_shown(policy['entropy'])} | {kl} | {tokens} | {distinct} |"


def quickstart_fronts() -> Iterator[str]:
    """Hypervolume of the policy's mixes and of the baselines, by seed."""
    yield "| seed | arm | hypervolume above (−1, −1) | mean inner product | dominates |"
    yield "|---|---|---|---|---|"
    for seed, results in _seeds():
        arms = results["test"]["fronts"]["arms"]
        names = {arm["policy"]: arm["name"] for arm in arms}
        for arm in arms:
            if arm["name"] in _SHOWN_FRONTS:
                dominated = {names[key]: share for key, share in arm["dominates"].items()}
                shares = [f"{name} {dominated[name]:.0%}" for name in _SHOWN_FRONTS if name in dominated]
                figures = f"{_shown(arm['hypervolume'])} | {_shown(arm['mean_inner_product'])}"
                yield f"| {seed} | {arm['name']} | {figures} | {', '.join(shares)} |"


def hh_tracking() -> Iterator[str]:
    """Tracking of length on HH, with and without reward lines."""
    yield _TRACKING
    yield "|---|---|---|---|---|---|---|---|"
    for policy in _policies(json.loads((RESULTS / "hh.json").read_text(encoding="utf-8"))):
        for name, found in policy["rewards"].items():
            yield f"| {policy['name']} | {name} | {_tracking(found)} |"


def coverage() -> Iterator[str]:
    """Coverage of the intervals, by the number of prompts."""
    result = json.loads((RESULTS / "coverage.json").read_text(encoding="utf-8"))
    by_prompts = result["coverage"]
    yield f"| of {result['studies']:,} studies | {' | '.join(f'{prompts} prompts' for prompts in by_prompts)} |"
    yield "|---" * (len(by_prompts) + 1) + "|"
    for name in result["truth"]:
        if name in ("pooled kendall", "pooled r2"):  # which eval gave when this was measured
            continue
        yield f"| {name} | {' | '.join(f'{100 * shares[name]:.1f}%' for shares in by_prompts.values())} |"


def uncertainty() -> Iterator[str]:
    """Estimates and bounds of entropy and KL, with the values from full distributions of the same samples."""
    result = json.loads((RESULTS / "uncertainty.json").read_text(encoding="utf-8"))
    tops = list(next(iter(result["pairs"].values()))["between"])
    ends = " | ".join(f"{top} likeliest" for top in tops)
    yield f"| reference | entropy, nats per token | {ends} | sampled | KL, nats per completion | k1 | k3 | n |"
    yield "|---" * (len(tops) + 7) + "|"
    for name, found in result["pairs"].items():
        between = " | ".join(f"{one['low']:.2f} to {one['high']:.2f}" for one in found["between"].values())
        kls = " | ".join(f"{one['mean']:.3f} ± {one['error']:.3f}" for one in found["kl"].values())
        exact, sampled = (f"{found['entropy'][kind]:.3f}" for kind in ("exact", "sampled"))
        n = f"{found['tokens']:,} tokens of {result['samples']:,}"
        yield f"| {name} | {exact} | {between} | {sampled} | {kls} | {n} |"


def benchmarks() -> Iterator[str]:
    """Each load: ours and the best peer, side by side."""
    yield "| load | irlhf, a second | best peer | peer, a second | ratio: median [least, most] | n |"
    yield "|---|---|---|---|---|---|"
    paths = (path for kind in _UNITS for path in sorted(RESULTS.glob(f"bench-{kind}*.json")))
    for path in paths:
        result = json.loads(path.read_text(encoding="utf-8"))
        loads = {name: one for name, one in {**result, "": result}.items() if isinstance(one, dict) and "ratio" in one}
        for name, found in loads.items():
            rates, peer, ratio = found["per_second"], found["best_peer"], found["ratio"]
            told = _spread(ratio)
            numbers = f"{rates['irlhf']['median']:,.0f} | {peer} | {rates[peer]['median']:,.0f}"
            what = result.get("model") or result["data"]
            load = ", ".join(part for part in (_UNITS[path.stem.split("-")[1]], what, name) if part)
            yield f"| {load} | {numbers} | {told} | {ratio['n']} |"


def prepare() -> Iterator[str]:
    """How fast pairs are prepared beside each peer, by the clock and by processor time."""
    found = _result("bench-prepare")
    peers = [name for name in ("plain", "datasets") if f"against {name}" in found]
    if not peers:
        yield "How fast pairs are prepared was not measured."
        return
    cpu = found["processor seconds"]
    yield f"{found['data']}, {found['machine']['cores']} cores; {found['written']:,} rows of every arm are equal."
    yield ""
    yield "| peer | pairs a second: irlhf, peer | ratio: median [least, most] | processor seconds | ratio | n |"
    yield "|---|---|---|---|---|---|"
    for peer in peers:
        one = found[f"against {peer}"]
        rates = ", ".join(f"{one['per_second'][arm]['median']:,.0f}" for arm in ("irlhf", peer))
        times = ", ".join(f"{cpu[arm]['median']:.1f}" for arm in ("irlhf", peer))
        ratios = _spread(one["ratio"]), _spread(one["processor ratio"])
        yield f"| {peer} | {rates} | {ratios[0]} | {times} | {ratios[1]} | {one['ratio']['n']} |"
    if "datasets" not in peers:
        yield ""
        yield "`datasets` was not installed where this was measured, so its arm is missing."


def prepare_memory() -> Iterator[str]:
    """Peak memory of prepare and its peers along the number of pairs."""
    found = _result("bench-prepare").get("memory", {})
    if not found:
        yield "Peak memory of `prepare` was not measured."
        return
    sizes = sorted(int(size) for size in found["irlhf"] if size.isdigit())
    yield f"| peak, MiB | {' | '.join(f'{size:,} pairs' for size in sizes)} | bytes that a further one takes |"
    yield "|---" * (len(sizes) + 2) + "|"
    for arm, one in found.items():
        peaks = " | ".join(f"{one[str(size)]['peak_mib']:.0f}" for size in sizes)
        yield f"| {arm} | {peaks} | {one['bytes a pair']:.0f} |"


def to_loss() -> Iterator[str]:
    """How long each arm takes to one held-out loss, and how many steps."""
    found = _result("bench-to-loss")
    peers = [name for name in ("Trainer", "TRL") if f"against {name}" in found]
    if not peers:
        yield "Time to equal held-out loss was not measured."
        return
    level, rows = found["level"], found["rows a step"]
    yield f"Until the loss on held-out completions is {level:.2f} nats a token ({found['model']}, {rows} rows a step)."
    yield "The level was fixed in advance, with a seed that is not among these."
    yield ""
    yield "| peer | irlhf: seconds, steps | peer: seconds, steps | ratio of seconds: median [least, most] | seeds |"
    yield "|---|---|---|---|---|"
    for peer in peers:
        each = [[found[arm][what]["median"] for what in ("seconds", "steps")] for arm in ("irlhf", peer)]
        numbers = (f"{seconds:.1f}, {steps:.0f}" for seconds, steps in each)
        ratio = found[f"against {peer}"]["ratio"]
        yield f"| {peer} | {' | '.join(numbers)} | {_spread(ratio)} | {ratio['n']} |"


def layouts() -> Iterator[str]:
    """How fast training is in each layout, and beside rows of like length side by side."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("bench-layouts-*.json"))]
    if not results:
        yield "How fast each layout is was not measured."
        return
    yield "| model | layout | completion tokens a second | times `bucketed`: median [least, most] | n |"
    yield "|---|---|---|---|---|"
    for result in results:
        for layout in ("bucketed", "shared"):
            found = result["layouts"][layout]
            ratio = found["to bucketed"]
            numbers = f"{found['per_second']['median']:,.0f} | {_spread(ratio)}"
            yield f"| {result['model']} | {layout} | {numbers} | {ratio['n']} |"


def score_peak() -> Iterator[str]:
    """What share of the machine's matrix multiplication scoring reaches."""
    found = _result("bench-score")
    if "share of matmul peak" not in found:
        yield "What share of the machine's matrix multiplication scoring reaches was not measured."
        return
    share, peak = found["share of matmul peak"], found["matmul GFLOP/s"]
    yield f"Scoring reaches {share:.0%} of what the machine does in multiplications of large matrices ({peak} GFLOP/s,"
    yield "single precision), where only operations count that the texts need without padding. The goal is 55%."


def memory() -> Iterator[str]:
    """Peak memory and time of score and sample along the number of rows."""
    found = _result("bench-memory")
    loads = [name for name in ("score", "sample", "killed") if "bytes a row" in found.get(name, {})]
    if not loads:
        yield "Not measured yet: `python benchmarks/memory.py -o docs/results/bench-memory.json` does it."
        return
    yield "![peak memory and time a row, from a thousand to a million rows](memory.png)"
    yield ""
    yield "| load | rows | peak, MiB | seconds | microseconds a row |"
    yield "|---|---|---|---|---|"
    for load in loads:
        for size in sorted(int(size) for size in found[load] if size.isdigit()):
            one = found[load][str(size)]
            told = f"{one['peak_mib']:.0f} | {one['seconds']:.1f} | {1e6 * one['seconds'] / size:.0f}"
            yield f"| {load} | {size:,} | {told} |"
    yield ""
    grown = ", ".join(f"{found[load]['bytes a row']:.0f} for {load}" for load in loads)
    yield f"Bytes that each further row takes at the peak: {grown}."


def _result(name: str) -> dict[str, Any]:
    """Return a result, empty where it was not measured."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _spread(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} [{ratio['least']:.2f}, {ratio['most']:.2f}]"


def _tracking(found: dict[str, Any]) -> str:
    error = found["error"]
    gold = _shown(found["gold"]["within"]) if "gold" in found else "–"
    floors = f"{error['floor_permuted']:.3f}, {error['floor_constant']:.3f}"
    figures = [found["within"]["spearman"], found["pooled"]["spearman"], error["mean_absolute"]]
    told = " | ".join([_shown(figures[0]), _shown(figures[1]), _shown(figures[2], 3)])
    return f"{told} | {floors} | {gold} | {found['n']:,} of {found['prompts']}"


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    **asking.TABLES,
    **rewards.TABLES,
    **steering.TABLES,
    **online.TABLES,
    "quickstart-tracking": quickstart_tracking,
    "quickstart-mix": quickstart_mix,
    "quickstart-baselines": quickstart_baselines,
    "quickstart-best-of": quickstart_best_of,
    "quickstart-nearest-of": quickstart_nearest_of,
    "quickstart-price": quickstart_price,
    "quickstart-fronts": quickstart_fronts,
    "hh-tracking": hh_tracking,
    "coverage": coverage,
    "uncertainty": uncertainty,
    "benchmarks": benchmarks,
    "prepare": prepare,
    "prepare-memory": prepare_memory,
    "to-loss": to_loss,
    "layouts": layouts,
    "score-peak": score_peak,
    "memory": memory,
}

if __name__ == "__main__":
    sys.exit(main())
