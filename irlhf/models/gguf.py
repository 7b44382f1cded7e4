"""Write a GGUF file, the format of llama.cpp, as a model folder with plain weights."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import ConfigError
from irlhf.io.files import expanded, read_json, whole_folder, write_json
from irlhf.io.resumable import digest_of

_SOURCE = "gguf.json"  # in the folder: the digest of the GGUF file


def model_folder(name: str) -> str:
    """Return a model's name, or for a GGUF file the folder of its dequantized model, which is written beside it once.

    Weights are saved in bfloat16. Raises ConfigError if transformers cannot read the file.
    """
    path = Path(expanded(name))
    if path.suffix.lower() != ".gguf":
        return expanded(name)
    if not path.is_file():
        raise ConfigError(f"{name}: no such file")
    folder, digest = path.with_suffix(""), digest_of(path)
    if folder.exists():
        if not (folder / _SOURCE).is_file() or read_json(folder / _SOURCE).get("digest") != digest:
            raise ConfigError(f"{folder} exists, but is not the model of {name}; rename one of them")
        return str(folder)
    if find_spec("gguf") is None:
        raise ConfigError(f"{name}: a GGUF file needs gguf: pip install 'irlhf[gguf]'")
    if console.PROCESSES > 1:
        raise ConfigError(f"{name}: write it as a folder first, with irlhf sample or irlhf finetune in one process")
    model, tokenizer = _dequantized(path)
    with whole_folder(folder) as partial:
        tokenizer.save_pretrained(partial)
        model.save_pretrained(partial)
        write_json(partial / _SOURCE, {"file": path.name, "digest": digest})
    console.note(f"{name}: dequantized to bfloat16, and saved as the model folder {folder}")
    return str(folder)


def _dequantized(path: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given: dict[str, Any] = {"gguf_file": path.name, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **given)
        model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **given)
    except Exception as error:  # a damaged file, or a model of another kind, can fail with any exception
        reason = str(error).strip().split("\n", 1)[0][:160]
        raise ConfigError(f"{path}: transformers cannot read this GGUF file ({reason})") from error
    # The weights are plain numbers by now, and save_pretrained refuses quantized ones.
    model.config.__dict__.pop("quantization_config", None)
    model.is_quantized, model.hf_quantizer, model.quantization_method = False, None, None
    return model.to(torch.bfloat16), tokenizer
