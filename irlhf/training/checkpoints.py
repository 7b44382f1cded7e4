"""Weights that were trained: whether they are numbers, how they lie in a folder, what tells them from others."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from irlhf.core.errors import ConfigError, OutputError

_VERSIONS = ("irlhf", "torch", "transformers")
# Stands in what libraries in Rust, and torch, say of a file that they cannot write.
_REFUSED = ("os error", "inline_container", "PytorchStreamWriter")


def refuse_broken(model: Any) -> None:
    """Raise ConfigError where a weight is no number any more."""
    if not all(bool(weights.isfinite().all()) for weights in model.parameters()):
        raise ConfigError("training diverged: some weights are no numbers any more; learn slower, with --learning-rate")


@contextmanager
def disk_errors_as_output_errors(folder: Path) -> Iterator[None]:
    """Raise OutputError where the disk refuses weights: the libraries that write them say it in words of their own."""
    try:
        yield
    except Exception as error:  # of safetensors, tokenizers and torch, which have no class for it in common
        if not any(sign in str(error) for sign in _REFUSED):
            raise
        problem = f"{folder}: cannot be written ({str(error).splitlines()[0]})"
        raise OutputError(f"{problem}; free some room or name another") from error


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model and its tokenizer as others load them."""
    with disk_errors_as_output_errors(folder):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        file.chmod((folder / "tokenizer_config.json").stat().st_mode)  # safetensors makes them private


def digest(folder: Path) -> str:
    """Return the digest of the weights in a folder."""
    hashed = hashlib.sha256()
    for shard in sorted(folder.glob("*.safetensors")):
        with shard.open("rb") as stream:
            hashed.update(hashlib.file_digest(stream, "sha256").digest())
    return hashed.hexdigest()


def versions() -> dict[str, str]:
    """Return what weights were made with."""
    return {name: version(name) for name in _VERSIONS}
