"""Check, save and hash trained weights."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from irlhf.core.errors import ConfigError, OutputError

_VERSIONS = ("irlhf", "torch", "transformers")
# Parts of the messages that Rust libraries and torch raise if a file cannot be written.
_WRITE_ERRORS = ("os error", "inline_container", "PytorchStreamWriter")


def refuse_broken(model: Any) -> None:
    """Raise ConfigError if a weight is NaN or infinite."""
    if not all(bool(weights.isfinite().all()) for weights in model.parameters()):
        raise ConfigError("training diverged: some weights are NaN or infinite; lower --learning-rate")


@contextmanager
def disk_errors_as_output_errors(folder: Path) -> Iterator[None]:
    """Raise OutputError if weights cannot be written to disk."""
    try:
        yield
    except Exception as error:  # safetensors, tokenizers and torch share no exception class
        if not any(sign in str(error) for sign in _WRITE_ERRORS):
            raise
        problem = f"{folder}: cannot be written ({str(error).splitlines()[0]})"
        raise OutputError(f"{problem}; free disk space or choose another output") from error


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save a model and its tokenizer in the Hugging Face format."""
    with disk_errors_as_output_errors(folder):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        file.chmod((folder / "tokenizer_config.json").stat().st_mode)  # safetensors writes files with mode 0600


def digest(folder: Path) -> str:
    """Return the SHA-256 of all .safetensors files in a folder, as hexadecimal digits."""
    hashed = hashlib.sha256()
    for shard in sorted(folder.glob("*.safetensors")):
        with shard.open("rb") as stream:
            hashed.update(hashlib.file_digest(stream, "sha256").digest())
    return hashed.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of irlhf, torch and transformers."""
    return {name: version(name) for name in _VERSIONS}
