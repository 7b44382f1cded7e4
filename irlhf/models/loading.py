"""Load models and tokenizers from a folder or the hub, without running remote code."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from irlhf.core import console
from irlhf.core.errors import ConfigError
from irlhf.io.hub_client import lookup_error, set_up_hub_client
from irlhf.models.chat_template import without_rewards
from irlhf.models.description import adapted_base
from irlhf.models.prompt_encoding import PLAIN_CHAT
from irlhf.policy.turn_format import TurnFormat

_SMALL = 1_000_000  # parameters
_ADAPTER_WEIGHTS = "adapter_model.safetensors"

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def load_causal(name: str, dtype: torch.dtype | None = None) -> tuple[Any, Any]:
    """Return a causal language model and its tokenizer, with padding and chat template set.

    The weights have the dtype `dtype`, or the saved one. A folder of LoRA weights gives its base model with these
    merged in. A base without a chat template gets a plain one. Raises ConfigError if the model cannot be loaded.
    """
    return _load_merged(name, dtype).to(device()), load_speaker(name)


def load_classifier(name: str, revision: str = "") -> tuple[Any, Any]:
    """Return a sequence classifier in evaluation mode and its tokenizer. Raises ConfigError."""
    model = _load(AutoModelForSequenceClassification, name, revision=revision or "main").eval()
    return model.to(device()), load_tokenizer(name, revision)


def load_untrained(name: str) -> tuple[Any, Any]:
    """Return a one-logit sequence classifier in float32, and its tokenizer, for training.

    The head is new unless the base already has one of this shape. A tokenizer without a separator token and without
    a chat template gets a plain chat template. Raises ConfigError.
    """
    single = {"num_labels": 1, "ignore_mismatched_sizes": True, "dtype": torch.float32}
    model, missing_weights = _loaded(AutoModelForSequenceClassification, name, **single)
    if f"{_head(model)[0]}.weight" in missing_weights:
        soften_head(model)
    tokenizer = load_tokenizer(name)
    if tokenizer.sep_token is None:
        tokenizer.chat_template = tokenizer.chat_template or PLAIN_CHAT
        tokenizer.padding_side = "right"  # left padding would shift the positions
    if tokenizer.pad_token_id is None:
        raise ConfigError(f"{name}: its tokenizer has no padding token, so rows cannot be batched; choose another base")
    return model.to(device()), tokenizer


def soften_head(model: Any) -> None:
    """Initialize a new head so that rewards are near 0 (Stiennon et al. 2020, arXiv 2009.01325)."""
    head = _head(model)[1]
    torch.nn.init.normal_(head.weight, std=1 / (head.in_features + 1))


def _head(model: Any) -> tuple[str, Any]:
    """Return the name of the layer that computes the logit, and the layer."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    name = [name for name, layer in layers.items() if layer.out_features == 1][-1]
    return name, layers[name]


def load_speaker(name: str) -> Any:
    """Return the tokenizer of a causal language model, with a plain chat template if it has none."""
    tokenizer = load_tokenizer(name)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)  # masked and not trained on, like every padding
    tokenizer.chat_template = _with_default(name, tokenizer.chat_template) or PLAIN_CHAT
    return tokenizer


def load_tokenizer(name: str, revision: str = "") -> Any:
    """Return a tokenizer with a padding token, if it has any special token. Raises ConfigError."""
    if not Path(name).is_dir():
        set_up_hub_client()
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, revision=revision or "main")
    except (OSError, ValueError) as error:
        raise lookup_error(name, "no tokenizer", error) from error
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        # transformers creates an empty tokenizer if the folder has none.
        raise ConfigError(f"{name}: no tokenizer with a vocabulary")
    if tokenizer.pad_token is None:
        # Padding is masked and not trained on, so any token works.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    tokenizer.chat_template = _base_chat(tokenizer.chat_template)
    return tokenizer


def counter(name: str) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text. Raises ConfigError."""
    tokenizer = load_tokenizer(name)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def add_tokens(model: Any, tokenizer: Any, lines: Sequence[str]) -> None:
    """Add a token for each line; new embeddings are drawn around the mean of the existing ones."""
    tokenizer.add_tokens([AddedToken(line, normalized=False, special=True) for line in lines], special_tokens=True)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))


def context_of(model: Any) -> int:
    """Return the maximum number of tokens of the model; 2048 if the configuration has no limit."""
    return int(getattr(model.config, "max_position_embeddings", None) or 2048)


def vocabulary_of(name: str, tokenizer: Any) -> int | None:
    """Return the vocabulary size of a model from its configuration, or None if there is none.

    Embeddings are often wider than the tokenizer, and the model gives the unused ones some probability.
    """
    if not Path(name).is_dir():
        set_up_hub_client()
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError):
        return None
    return max(len(tokenizer), int(config.get_text_config().vocab_size))


def size_of(model: Any) -> int:
    """Return the number of parameters of a model."""
    return sum(weights.numel() for weights in model.parameters())


def end_tokens(model: Any, tokenizer: Any, turns: TurnFormat | None = None) -> list[int]:
    """Return the ids that end a completion: those of the tokenizer, generation_config.json and the chat template."""
    shipped = getattr(model.generation_config, "eos_token_id", None)
    known = [*(shipped if isinstance(shipped, list) else [shipped]), *(turns.ends if turns else ())]
    return sorted({token for token in [tokenizer.eos_token_id, *known] if token is not None})


def device() -> str:
    """Return the device of models: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@contextmanager
def fitting_threads(model: Any) -> Iterator[None]:
    """Use one CPU thread for small models, and restore the number of threads afterwards.

    Below a million parameters, a second thread saves a sixth of the time on an idle machine. On a busy machine it takes
    five times as long, because threads wait for each other at every operation.
    """
    before = torch.get_num_threads()
    if size_of(model) < _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _load_merged(name: str, dtype: torch.dtype | None) -> Any:
    """Return a causal language model; LoRA weights are merged into it."""
    base = adapted_base(name)
    if not base:
        return _load(AutoModelForCausalLM, name, dtype=dtype or "auto")
    from irlhf.models.adapters import merged

    if not (Path(name) / _ADAPTER_WEIGHTS).is_file():
        raise ConfigError(f"{name}: no {_ADAPTER_WEIGHTS} in this folder of LoRA weights; save them as safetensors")
    model = _load_merged(base, dtype)
    try:
        return merged(model, name)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"{name}: these LoRA weights do not fit their base {base} ({_reason(error)})") from error


def _load(kind: Any, name: str, **options: Any) -> Any:
    """Return a model with all weights loaded from its files. Raises ConfigError if weights are missing."""
    model, missing_weights = _loaded(kind, name, **options)
    if missing_weights:
        # transformers would initialize them randomly without an error.
        first, *more = sorted(missing_weights)
        missing = f"{first} and {len(more)} more" if more else first
        raise ConfigError(f"{name}: weights are missing, so this is another kind of model ({missing})")
    return model


def _loaded(kind: Any, name: str, **options: Any) -> tuple[Any, set[str]]:
    """Return a model, and the names of the weights that are missing from its files."""
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise ConfigError(f"{name}: no such folder")
    if not Path(name).is_dir():
        set_up_hub_client()
    arguments = {"dtype": "auto", "use_safetensors": True, "output_loading_info": True, **options}
    try:
        # Without trust_remote_code=False, transformers would ask on stdin. safetensors files contain no code.
        model, report = kind.from_pretrained(name, trust_remote_code=False, **arguments)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise lookup_error(name, "no model of this kind in safetensors format", error) from error
    return model, {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}


def _base_chat(chat_template: str | dict[str, str] | None) -> str | dict[str, str] | None:
    """Return the base's chat template, because irlhf writes rewards into the messages itself."""
    if isinstance(chat_template, dict):
        return {name: without_rewards(text) for name, text in chat_template.items()}
    return without_rewards(chat_template) if chat_template else chat_template


def _with_default(name: str, chat_template: str | dict[str, str] | None) -> str | dict[str, str] | None:
    """Return the chat templates of a tokenizer, with a default if there are several."""
    if not isinstance(chat_template, dict) or not chat_template or "default" in chat_template:
        return chat_template
    chosen = "chat" if "chat" in chat_template else next(iter(chat_template))
    console.note(f"{name}: several chat templates ({', '.join(chat_template)}) and no default; using '{chosen}'")
    return {**chat_template, "default": chat_template[chosen]}


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:160]
