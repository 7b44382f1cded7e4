"""Models whose numbers depend on the shape of the batch on purpose, as rounding makes those of any model do.

    python shape_dependent.py BYTES COMMAND …

runs irlhf with these models known to transformers. Where BYTES is not 0, the kernel kills it in the middle of the write
that makes a file longer than that.
"""

import json
import resource
import shutil
import signal
import sys
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
)

LLAMA, BERT = "shape_dependent_llama", "shape_dependent_bert"


def shifted(logits: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Add to every logit a number that depends on how many rows and tokens are read side by side."""
    rows, width = inputs.shape
    return logits + torch.sin(torch.arange(logits.shape[-1]) * (17 * rows + width + 1.0))


class ShapeLlamaConfig(LlamaConfig):  # type: ignore[misc]
    model_type = LLAMA


class ShapeBertConfig(BertConfig):  # type: ignore[misc]
    model_type = BERT


class ShapeLlama(LlamaForCausalLM):  # type: ignore[misc]
    config_class = ShapeLlamaConfig

    @wraps(LlamaForCausalLM.forward)
    def forward(self, **inputs: Any) -> Any:
        found = super().forward(**inputs)
        found.logits = shifted(found.logits, inputs["input_ids"])
        return found


class ShapeBert(BertForSequenceClassification):  # type: ignore[misc]
    config_class = ShapeBertConfig

    @wraps(BertForSequenceClassification.forward)
    def forward(self, **inputs: Any) -> Any:
        found = super().forward(**inputs)
        found.logits = shifted(found.logits, inputs["input_ids"])
        return found


def register() -> None:
    """Let transformers load these models by the `model_type` of a folder's config.json."""
    AutoConfig.register(LLAMA, ShapeLlamaConfig, exist_ok=True)
    AutoConfig.register(BERT, ShapeBertConfig, exist_ok=True)
    AutoModelForCausalLM.register(ShapeLlamaConfig, ShapeLlama, exist_ok=True)
    AutoModelForSequenceClassification.register(ShapeBertConfig, ShapeBert, exist_ok=True)


def made_dependent(folder: Path, copy: Path, model_type: str) -> Path:
    """Copy a model's folder and let its config.json name a class of this module."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
    return copy


def die_behind(size: int) -> None:
    """Let the kernel kill this process, without a chance to clean up, once a file is so many bytes long."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


if __name__ == "__main__":
    from irlhf.cli.app import main

    if size := int(sys.argv.pop(1)):
        die_behind(size)
    register()
    main()
