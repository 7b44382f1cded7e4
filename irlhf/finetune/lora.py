"""Low-rank updates: train a hundredth of the parameters, and merge them into the weights at the end."""

from typing import Any

from peft import LoraConfig, get_peft_model

_ALPHA = 2  # times the rank: the usual strength


def with_lora(model: Any, rank: int) -> Any:
    """Return the model with trainable low-rank updates beside every linear layer but the vocabulary's.

    (Hu et al. 2021, arXiv 2106.09685.) The rest is frozen.
    """
    config = LoraConfig(r=rank, lora_alpha=_ALPHA * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, config)
