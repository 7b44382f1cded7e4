"""The front matter of model cards, with evaluation results that programs can read (`model-index`)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

_SAMPLES = "irlhf-samples"  # type of the data that policies are evaluated on; marks the results that are replaced
_REWARD_MODEL_METRICS = {
    "pairs": {"accuracy": ("accuracy", "Accuracy")},
    "ratings": {"spearman": ("spearmanr", "Spearman correlation"), "error": ("mae", "Mean absolute error")},
}  # by key of the figures: the Hub's name of the metric, and a readable one


def front_matter(name: str, hub: str, task: str, tags: Sequence[str], results: Sequence[EvalResult] = ()) -> str:
    """Return the front matter of the card of a model trained from the base `name`, as YAML.

    `hub` is the id of the base on the Hub, or "".
    """
    data = ModelCardData(
        base_model=hub or None,
        library_name="transformers",
        pipeline_tag=task,
        tags=["irlhf", *tags],
        model_name=name if results else None,
        eval_results=list(results) or None,
    )
    return data.to_yaml()


def with_results(content: bytes, evaluated: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a card with the figures of entries of eval.json in its front matter.

    Earlier figures are replaced, other results are kept. A card whose front matter cannot be read is not changed.
    """
    text = content.decode("utf-8", "surrogateescape")
    if not text.startswith("---"):
        return content
    try:
        model_card = ModelCard(text)
    except (ValueError, yaml.YAMLError):
        return content
    data = model_card.data
    assert isinstance(data, ModelCardData)
    others = [result for result in data.eval_results or () if result.dataset_type != _SAMPLES]
    data.model_name = data.model_name or evaluated[0]["name"]
    data.eval_results = [*others, *(result for arm in evaluated for result in _policy_results(arm))] or None
    return str(model_card).encode("utf-8", "surrogateescape")


def reward_model_results(kind: str, figures: Mapping[str, Any]) -> list[EvalResult]:
    """Return the figures of a reward model on held-out `pairs` or `ratings`."""
    data = f"{figures['n']:,} held-out {kind} of {figures['prompts']:,} prompts"
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=kind,
            dataset_name=data,
            metric_type=metric,
            metric_value=round(figures[key]["value"], 4),
            metric_name=f"{name}, {_interval(figures[key])}",
        )
        for key, (metric, name) in _REWARD_MODEL_METRICS[kind].items()
    ]


def _policy_results(arm: Mapping[str, Any]) -> Iterator[EvalResult]:
    for reward, metrics in arm["rewards"].items():
        for metric, name, figure in (
            ("spearmanr", "Spearman correlation within prompts", metrics["within"].get("spearman")),
            ("spearmanr", "Spearman correlation over all samples", metrics["pooled"].get("spearman")),
            ("mae", "Mean distance from the target", metrics["error"]["mean_absolute"]),
        ):
            if figure is not None:
                yield EvalResult(
                    task_type="text-generation",
                    dataset_type=_SAMPLES,
                    dataset_name=f"{metrics['n']:,} samples of {metrics['prompts']:,} prompts",
                    dataset_config=arm["name"],
                    metric_type=metric,
                    metric_value=round(figure["value"], 4),
                    metric_name=f"{reward}: {name}, {_interval(figure)}",
                )


def _interval(figure: Mapping[str, float]) -> str:
    return f"95% interval {figure['low']:.3f} to {figure['high']:.3f}"
