"""Read the size, context and commit of a model from its files, without loading its weights."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig, AutoModelForCausalLM

from irlhf.core.errors import ConfigError
from irlhf.io.hub_client import lookup_error, set_up_hub_client

_CONFIG, _ADAPTER = "config.json", "adapter_config.json"
_CONTEXT = 2048  # tokens, if the configuration has no limit


@dataclass(frozen=True)
class Description:
    """Properties of a causal language model that are known before loading its weights."""

    parameters: int
    width: int  # the hidden size
    context: int  # maximum number of tokens
    commit: str  # of the hub repository; empty for a folder


def describe(name: str) -> Description:
    """Describe the model in a folder or on the hub; for a folder of adapters, its base model.

    Raises ConfigError if there is no causal language model, and BackendError if the Hub cannot be reached.
    """
    folder = Path(name)
    if name.startswith((".", "/", "~")) and not folder.is_dir():
        raise ConfigError(f"{name}: no such folder")
    if folder.is_dir() and not (folder / _CONFIG).is_file():
        if base := adapted_base(name):
            return describe(base)
        raise ConfigError(f"{name}: no {_CONFIG} in this folder, so it holds no model; choose a model folder")
    if not folder.is_dir():
        set_up_hub_client()
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        where = "in this folder" if folder.is_dir() else "with this name on the hub, and no such folder"
        raise lookup_error(name, f"no causal language model {where}", error) from error
    text = config.get_text_config()
    return Description(
        parameters=sum(weights.numel() for weights in model.parameters()),
        width=int(getattr(text, "hidden_size", 0) or 768),
        context=int(getattr(text, "max_position_embeddings", None) or _CONTEXT),
        commit="" if folder.is_dir() else _commit(name),
    )


def adapted_base(name: str) -> str:
    """Return the base model of a folder of LoRA weights; empty for any other model. Raises ConfigError."""
    path = Path(name) / _ADAPTER
    if not path.is_file() or (path.parent / _CONFIG).is_file():
        return ""
    try:
        base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: damaged ({error}); save the LoRA weights again") from error
    if not base:
        raise ConfigError(f"{path}: no base_model_name_or_path, so the base model is unknown; add it")
    return str(base)


def _commit(name: str) -> str:
    """Return the commit of a hub repository, which is the name of its cache folder."""
    cached = try_to_load_from_cache(name, _CONFIG)
    return Path(cached).parent.name if isinstance(cached, str) else ""
