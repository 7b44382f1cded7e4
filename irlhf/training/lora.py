"""Low-rank updates: train a hundredth of the parameters, and merge them into the weights at the end."""

import warnings
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model

_ALPHA = 2  # times the rank: the usual strength


def with_lora(model: Any, rank: int, base: str) -> Any:
    """Return the model with trainable low-rank updates beside every linear layer but the vocabulary's.

    (Hu et al. 2021, arXiv 2106.09685.) The rest is frozen. Saved alone, the updates say where their base is.
    """
    config = LoraConfig(r=rank, lora_alpha=_ALPHA * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers, nothing a user can mend
        made = get_peft_model(model, config)
    # A relative path would hold for the folder that the training was started in, and for no other.
    base_name = str(Path(base).resolve()) if Path(base).is_dir() else base
    made.peft_config[made.active_adapter].base_model_name_or_path = base_name
    return made
