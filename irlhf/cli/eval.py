"""irlhf eval."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from irlhf.cli import options
from irlhf.evaluation.settings import EvalSettings

EXAMPLES = """Examples:

irlhf eval scored-samples.jsonl

irlhf eval ours.jsonl plain.jsonl --policy policy --policy policy-plain -o eval.json

irlhf eval scored-validation.jsonl --calibrate policy

irlhf eval scored-pairs.jsonl -r rewards.yaml"""


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
        typer.Option(
            "-o", "--output", help="Where to write; - is stdout.", metavar="FILE", rich_help_panel=options.OUTPUT
        ),
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
    options.finish({**result, "output": str(output)}, json_, "the evaluation", f"irlhf plot {output}")


def _lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield one line a policy and reward, or a reward of preference pairs: the figures that matter most."""
    for kind, before in (("rewards", ""), ("gold", "gold ")):
        for name, metrics in result.get("pairs", {}).get(kind, {}).items():
            yield f"{before}{name}: {_preferred(metrics)}"
    for policy in result["policies"].values():
        for name, metrics in policy["rewards"].items():
            figures = [
                ("within prompts", metrics["within"].get("spearman")),
                ("pooled", metrics["pooled"].get("spearman")),
            ]
            text = ", ".join(f"{kind} {_shown(figure)}" for kind, figure in figures if figure) or "not available"
            error = metrics["error"]
            floor = min(error["floor_permuted"], error["floor_constant"])
            yield (
                f"{policy['name']} {name}: Spearman {text}; mean error {error['mean_absolute']['value']:.3f}"
                f" (floor {floor:.3f}); n = {metrics['n']:,} of {metrics['prompts']:,} prompts"
            )
        if "calibration" in policy:
            yield from _calibrated(policy["name"], policy["calibration"])


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
            f" {'a' if figures['map'] else 'no'} map from wanted to asked{gain if figures['gain'] else ''}"
        )
    splits = ", ".join(f"{split} {count:,}" for split, count in measured["splits"].items())
    yield (
        f"{policy}: calibrated on {measured['samples']:,} samples of {measured['prompts']:,} prompts ({splits});"
        f" remembers what {measured['requests']:,} requests brought"
    )


def _shown(figure: dict[str, float]) -> str:
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"
