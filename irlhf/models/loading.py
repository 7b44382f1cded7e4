"""Models from a folder or the hub, loaded without running anybody's code."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from irlhf.core.errors import ConfigError
from irlhf.models.chat_template import without_rewards
from irlhf.models.prompt_encoding import PLAIN_CHAT

_SMALL = 1_000_000  # parameters

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def load_causal(name: str, dtype: torch.dtype | None = None) -> tuple[Any, Any]:
    """Return a causal language model and its tokenizer, ready for prompts and padding.

    Its numbers are of `dtype`, or as they were saved. A base without a chat template gets a plain one.
    Raises ConfigError where nothing can be loaded.
    """
    model = _load(AutoModelForCausalLM, name, dtype=dtype or "auto").to(device())
    return model, load_speaker(name)


def load_classifier(name: str, revision: str = "") -> tuple[Any, Any]:
    """Return a sequence classifier in evaluation mode and its tokenizer. Raises ConfigError."""
    model = _load(AutoModelForSequenceClassification, name, revision=revision or "main").eval()
    return model.to(device()), load_tokenizer(name, revision)


def load_untrained(name: str) -> tuple[Any, Any]:
    """Return a sequence classifier of one logit in single precision, and its tokenizer, to be trained.

    The head is new unless the base has one of this shape already. A decoder, whose tokenizer does not part two texts,
    gets a plain chat template where it has none, as a policy does. Raises ConfigError.
    """
    single = {"num_labels": 1, "ignore_mismatched_sizes": True, "dtype": torch.float32}
    model, new = _loaded(AutoModelForSequenceClassification, name, **single)
    if f"{_head(model)[0]}.weight" in new:
        soften_head(model)
    tokenizer = load_tokenizer(name)
    if tokenizer.sep_token is None:
        tokenizer.chat_template = tokenizer.chat_template or PLAIN_CHAT
        tokenizer.padding_side = "right"  # behind their ends, or rows would begin at other positions than alone
    if tokenizer.pad_token_id is None:
        raise ConfigError(f"{name}: its tokenizer has no token to pad with, so rows cannot stand side by side")
    return model.to(device()), tokenizer


def soften_head(model: Any) -> None:
    """Draw a new head so small that at first it prefers nothing (Stiennon et al. 2020, arXiv 2009.01325)."""
    head = _head(model)[1]
    torch.nn.init.normal_(head.weight, std=1 / (head.in_features + 1))


def _head(model: Any) -> tuple[str, Any]:
    """Return the layer that gives the logit, and its name."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    name = [name for name, layer in layers.items() if layer.out_features == 1][-1]
    return name, layers[name]


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
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        # transformers makes an empty one where a folder holds none.
        raise ConfigError(f"{name}: no tokenizer with a vocabulary there")
    if tokenizer.pad_token is None:
        # Never attended to and never trained on, so any token serves.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    tokenizer.chat_template = _base_chat(tokenizer.chat_template)
    return tokenizer


def counter(name: str) -> Callable[[str], int]:
    """Return what counts the tokens of a text, as this model reads it. Raises ConfigError."""
    tokenizer = load_tokenizer(name)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


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
    return sorted({token for token in [tokenizer.eos_token_id, *known] if token is not None})


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


def _load(kind: Any, name: str, **options: Any) -> Any:
    """Return a model all of whose weights are in its files. Raises ConfigError."""
    model, new = _loaded(kind, name, **options)
    if new:
        # transformers would draw them at random and go on.
        first, *more = sorted(new)
        what = f"{first} and {len(more)} more" if more else first
        raise ConfigError(f"{name}: a model of another kind, without all the weights of this one ({what})")
    return model


def _loaded(kind: Any, name: str, **options: Any) -> tuple[Any, set[str]]:
    """Return a model, and the names of weights that are new because the files hold none of their name and shape."""
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise ConfigError(f"{name}: no such folder")
    arguments = {"dtype": "auto", "use_safetensors": True, "output_loading_info": True, **options}
    try:
        # Without `trust_remote_code=False` transformers would ask on stdin; safetensors hold no code.
        model, report = kind.from_pretrained(name, trust_remote_code=False, **arguments)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"{name}: no model of this kind in safetensors there ({_reason(error)})") from error
    return model, {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}


def _base_chat(chat_template: str | dict[str, str] | None) -> str | dict[str, str] | None:
    """Return the base's own chat template: irlhf writes rewards into the messages itself."""
    if isinstance(chat_template, dict):
        return {name: without_rewards(text) for name, text in chat_template.items()}
    return without_rewards(chat_template) if chat_template else chat_template


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:160]
