"""irlhf eval."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from irlhf.cli import options
from irlhf.evaluation.settings import EvalSettings

EXAMPLES = """Examples:

irlhf eval scored-samples.jsonl

irlhf eval ours.jsonl plain.jsonl --policy policy --policy policy-plain -o eval.json

irlhf eval scored-validation.jsonl --calibrate policy -o eval-validation.json

irlhf eval scored-pairs.jsonl -r rewards.yaml -o eval-pairs.json"""


def evaluate(
    samples: Annotated[
        list[Path], typer.Argument(help="Scored samples, or preference pairs; - is stdin.", metavar="SAMPLES")
    ],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy", help="Policy of the samples; repeatable. \\[folders beside the samples]", metavar="FOLDER"
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, metavar="X", help="An actual reward this near to its target is a success.")
    ] = 0.1,
    resamples: Annotated[int, typer.Option(min=100, metavar="N", help="Bootstrap resamples of each interval.")] = 1000,
    seed: options.Seed = 0,
    calibrate: Annotated[
        str,
        typer.Option("--calibrate", metavar="FOLDER", help="Store the reachable range in this policy."),
    ] = "",
    rewards: Annotated[
        str,
        typer.Option(
            "-r",
            "--rewards",
            metavar="FILE",
            help="rewards.yaml with the direction of each reward, for preference pairs.",
        ),
    ] = "",
    output: Annotated[
        Path,
        options.output_option("-o", "--output", help="Where to write; - is stdout.", metavar="FILE"),
    ] = Path("eval.json"),
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure how well samples follow their targets, or how often rewards prefer the chosen completion."""
    from irlhf.core import console
    from irlhf.evaluation.evaluate import evaluate as evaluate_samples

    console.be_quiet(quiet)
    settings = EvalSettings(
        policies=tuple(policy or ()),
        tolerance=tolerance,
        resamples=resamples,
        seed=seed,
        calibrate=calibrate,
        rewards=rewards,
    )
    result = evaluate_samples(samples, output, settings)
    for line in _lines(result):
        console.note(line)
    files = " ".join(str(path) for path in (output, *samples) if str(path) != "-")
    options.finish({**result, "output": str(output)}, json_, "the evaluation", f"irlhf plot {files}")


def _lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield the verdict on each policy, then one line a reward, or a reward of preference pairs."""
    from irlhf.policy.evaluation_file import verdicts

    for kind, before in (("rewards", ""), ("gold", "gold ")):
        for name, metrics in result.get("pairs", {}).get(kind, {}).items():
            yield f"{before}{name}: {_preferred(metrics)}"
    for policy in result["policies"].values():
        followed = [f"{name} {words}: {_shown(correlation)}" for name, words, correlation in verdicts(policy)]
        if followed:
            yield f"{policy['name']}: {'; '.join(followed)}"
        yield from (f"{policy['name']}: {_kept(entry)}" for entry in policy["bounds"])
        measured = {name for name, *_ in verdicts(policy)}.union(*(entry["bounds"] for entry in policy["bounds"]))
        if single := [name for name in policy["rewards"] if name not in measured]:
            yield (
                f"{policy['name']}: {', '.join(single)}: a single target was requested, which cannot show whether it is"
                f" followed; sample several, such as -t {single[0]}=0:1:0.25"
            )
    for policy in result["policies"].values():
        for name, metrics in policy["rewards"].items():
            error, pooled = metrics["error"], metrics["pooled"].get("spearman")
            floor = min(error["floor_permuted"], error["floor_constant"])
            # The best constant is no help where all targets are equal.
            steered = f" (at best {floor:.3f} without steering)" if pooled else ""
            correlation = f"; Spearman pooled {_shown(pooled)}" if pooled else ""
            yield (
                f"{policy['name']} {name}: mean error {error['mean_absolute']['value']:.3f}{steered}{correlation};"
                f" n = {metrics['n']:,} of {metrics['prompts']:,} prompts"
            )
        if "calibration" in policy:
            yield from _calibrated(policy["name"], policy["calibration"])


def _kept(entry: dict[str, Any]) -> str:
    """Return how many samples keep the bounds of a request, and what else they give."""
    wanted = " and ".join(f"{name}={entry['target'][name]}" for name in entry["bounds"])
    value, low, high = (f"{100 * entry['kept'][part]:.0f}%" for part in ("value", "low", "high"))
    given = [f"{name} {_shown(figure)}" for name, figure in entry["rewards"].items() if name not in entry["bounds"]]
    mix = [f"the mix {_shown(entry['weighted'])} sd from the training mean"] if entry["weighted"] else []
    counts = f"n = {entry['n']:,} of {entry['prompts']:,} prompts"
    return "; ".join([f"{value} [{low}, {high}] of the samples keep {wanted}", *given, *mix, counts])


def _preferred(figures: dict[str, Any]) -> str:
    """Return how often one reward prefers the chosen completion."""
    value, low, high = (f"{100 * figures['accuracy'][part]:.1f}" for part in ("value", "low", "high"))
    rules = (f"always the {rule} {figures[rule]['value']:.1%}" for rule in ("longer", "shorter"))
    text = f"{value}% [{low}, {high}] of {figures['n']:,} pairs; {', '.join(rules)}"
    loss = figures.get("calibration", {}).get("log_loss")
    return f"{text}; log loss {_shown(loss)} (a coin 0.69)" if loss else text


def _calibrated(policy: str, measured: dict[str, Any]) -> Iterator[str]:
    """Yield one line a reward, and one for the whole: what the policy will remember."""
    for name, figures in measured["rewards"].items():
        if not figures["reach"]:
            rise = f" (rise {_shown(figures['rise'])})" if figures["rise"] else ""
            yield f"{policy} {name}: no reach: asking for more was not shown to bring more{rise}"
            continue
        low, high = figures["reach"]
        gain = f" (gain {figures['gain']['value']:.3f} [{figures['gain']['low']:.3f}, {figures['gain']['high']:.3f}])"
        yield (
            f"{policy} {name}: reach {low:.3g} to {high:.3g} (rise {_shown(figures['rise'])});"
            f" {'a' if figures['map'] else 'no'} map from wanted rewards to targets{gain if figures['gain'] else ''}"
        )
    splits = ", ".join(f"{split} {count:,}" for split, count in measured["splits"].items())
    yield (
        f"{policy}: calibrated on {measured['samples']:,} samples of {measured['prompts']:,} prompts ({splits});"
        f" remembers what {measured['requests']:,} requests brought"
    )


def _shown(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"
