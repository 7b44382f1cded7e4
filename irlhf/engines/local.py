"""Models from a folder or the hub, loaded without running anybody's code."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from irlhf.engines.chat import PLAIN_CHAT
from irlhf.engines.dial import undialled
from irlhf.errors import ConfigError

_SMALL = 1_000_000  # parameters

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def load_causal(name: str, dtype: torch.dtype | None = None) -> tuple[Any, Any]:
    """Return a causal language model and its tokenizer, ready for prompts and padding.

    Its numbers are of `dtype`, or as they were saved. A base without a chat template gets a plain one.
    Raises ConfigError where nothing can be loaded.
    """
    model = _load(AutoModelForCausalLM, name, dtype)
    return model, load_speaker(name)


def load_classifier(name: str, revision: str = "") -> tuple[Any, Any]:
    """Return a sequence classifier in evaluation mode and its tokenizer. Raises ConfigError."""
    model = _load(AutoModelForSequenceClassification, name, revision=revision).eval()
    tokenizer = load_tokenizer(name, revision)
    tokenizer.truncation_side = "left"  # the completion stands last, and it is what is judged
    return model, tokenizer


def load_speaker(name: str) -> Any:
    """Return the tokenizer of a causal language model, with a plain chat template where it has none."""
    tokenizer = load_tokenizer(name)
    tokenizer.chat_template = tokenizer.chat_template or PLAIN_CHAT
    return tokenizer


def load_tokenizer(name: str, revision: str = "") -> Any:
    """Return a tokenizer that can pad. Raises ConfigError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, revision=revision or "main")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: no tokenizer ({_reason(error)})") from error
    if tokenizer.pad_token is None:
        # Never attended to and never trained on, so any token serves.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    tokenizer.chat_template = _base_chat(tokenizer.chat_template)
    return tokenizer


def add_tokens(model: Any, tokenizer: Any, lines: Sequence[str]) -> None:
    """Give a base a token for each of these lines, its embedding drawn about the mean of those there are."""
    tokenizer.add_tokens([AddedToken(line, normalized=False, special=True) for line in lines], special_tokens=True)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))


def context_of(model: Any) -> int:
    """Return how many tokens the model takes at once."""
    return int(getattr(model.config, "max_position_embeddings", None) or 2048)


def vocabulary_of(name: str, tokenizer: Any) -> int | None:
    """Return how many tokens a model can say at most, by its folder, without loading it.

    Embeddings are often wider than the tokenizer, and the model gives the spare ones some probability. None where the
    folder does not tell.
    """
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError):
        return None
    return max(len(tokenizer), int(config.get_text_config().vocab_size))


def size_of(model: Any) -> int:
    """Return how many parameters a model has."""
    return sum(weights.numel() for weights in model.parameters())


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Return the ids that end a completion: the tokenizer's, and those that the base was shipped with."""
    shipped = getattr(model.generation_config, "eos_token_id", None)
    known = shipped if isinstance(shipped, list) else [shipped]
    return sorted({one for one in [tokenizer.eos_token_id, *known] if one is not None})


def device() -> str:
    """Return where models run: the first accelerator, else the processor."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@contextmanager
def fitting_threads(model: Any) -> Iterator[None]:
    """Give a small model one processor thread, and the caller its own number back afterwards.

    Below a million parameters a second thread saves a sixth of the time on an idle machine, and costs five
    times as much on a busy one, where the threads wait for each other at every operation.
    """
    before = torch.get_num_threads()
    if size_of(model) < _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _load(kind: Any, name: str, dtype: torch.dtype | None = None, revision: str = "") -> Any:
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise ConfigError(f"{name}: no such folder")
    try:
        # Without `trust_remote_code=False` transformers would ask on stdin; safetensors hold no code.
        model = kind.from_pretrained(
            name, trust_remote_code=False, use_safetensors=True, dtype=dtype or "auto", revision=revision or "main"
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: no model of this kind in safetensors there ({_reason(error)})") from error
    return model.to(device())


def _base_chat(chat_template: str | dict[str, str] | None) -> str | dict[str, str] | None:
    """Return the base's own chat template: irlhf writes rewards into the messages itself."""
    if isinstance(chat_template, dict):
        return {name: undialled(text) for name, text in chat_template.items()}
    return undialled(chat_template) if chat_template else chat_template


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:160]
