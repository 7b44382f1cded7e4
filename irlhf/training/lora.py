"""Low-rank adapters (LoRA): train about 1% of the parameters."""

import warnings
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model

_ALPHA = 2  # multiple of the rank; a common choice


def with_lora(model: Any, rank: int, base: str) -> Any:
    """Return the model with a trainable LoRA adapter on every linear layer except the output projection.

    All other weights are frozen. The adapter configuration records the base model. Source: Hu et al. 2021, arXiv
    2106.09685.
    """
    config = LoraConfig(r=rank, lora_alpha=_ALPHA * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # raised between peft and transformers; users cannot fix it
        adapted = get_peft_model(model, config)
    # A relative path would be valid only in the current working directory.
    base_name = str(Path(base).resolve()) if Path(base).is_dir() else base
    adapted.peft_config[adapted.active_adapter].base_model_name_or_path = base_name
    return adapted
