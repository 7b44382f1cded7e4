"""Low-rank adapters (LoRA): train about 1% of the parameters, and merge the result into a model."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model

from irlhf.models.description import adapted_base

_ALPHA = 2  # multiple of the rank; a common choice


@contextmanager
def _without_future_warnings() -> Iterator[None]:
    """Hide warnings between peft and transformers, which users cannot fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def merged(model: Any, folder: str) -> Any:
    """Return the model with the LoRA weights of a folder merged into its own."""
    with _without_future_warnings():
        return PeftModel.from_pretrained(model, folder).merge_and_unload().requires_grad_(True)  # peft freezes them


def with_lora(model: Any, rank: int, base: str) -> Any:
    """Return the model with a trainable LoRA adapter on every linear layer except the output projection.

    All other weights are frozen. The adapter configuration records the base model. Source: Hu et al. 2021, arXiv
    2106.09685.
    """
    config = LoraConfig(r=rank, lora_alpha=_ALPHA * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with _without_future_warnings():
        adapted = get_peft_model(model, config)
    # A relative path would be valid only in the current working directory.
    base = adapted_base(base) or base  # LoRA weights in `base` are merged into the model already
    base_name = str(Path(base).resolve()) if Path(base).is_dir() else base
    adapted.peft_config[adapted.active_adapter].base_model_name_or_path = base_name
    return adapted
