"""Reward models: any Hugging Face sequence-classification checkpoint, from a folder or the hub."""

from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example
from irlhf.core.hashing import fingerprint
from irlhf.io.files import read_json
from irlhf.io.hub_client import lookup_error, set_up_hub_client
from irlhf.io.resumable import digest_of
from irlhf.policy.rewards_file import TEMPLATE
from irlhf.scoring.scorers.base import Failure, Reply, Traits


class Classifier:
    """Returns all logits of a sequence classifier by label.

    `input` is the format of its input (see irlhf/models/classifier.py), or the path of a Jinja template. `revision` is
    a commit, branch or tag on the hub. Raises ConfigError if there is no such model or template.
    """

    def __init__(self, name: str, *, input: str = "", revision: str = "") -> None:
        self.input = input
        self.template = _template(Path(input)) if input.endswith(TEMPLATE) else ""
        folder = _folder(name, revision)
        here = Path(name).expanduser().is_dir()
        if here and revision:
            raise ConfigError(f"{name}: a folder has no `revision:`; remove it")
        # For a model on the hub, load the commit that is part of the cache key.
        self.name, self.revision = (str(folder.absolute()), "") if here else (name, folder.name)
        known = digest_of(folder) if here else f"{name} {folder.name}"
        shown = fingerprint(self.template) if self.template else input
        self.traits = Traits(f"hf {known} {shown}", link=_link(read_json(folder / "config.json")))

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        replies = self.replies_at(examples, range(len(examples)))
        return [replies[i] for i in range(len(examples))]

    def replies_at(self, examples: Sequence[Example], missing: Collection[int]) -> dict[int, Reply | Failure]:
        """Return the logits of the examples at the indices `missing`; batches include all examples."""
        shown = [self._shown(example) for example in examples]
        readable = [i for i, row in enumerate(shown) if not isinstance(row, Failure)]
        wanted = [position for position, i in enumerate(readable) if i in missing]
        logits = self._reader.logits_at([shown[i] for i in readable], wanted)
        replies = {
            readable[position]: dict(zip(self._reader.labels, row, strict=True)) for position, row in logits.items()
        }
        return {i: replies.get(i, shown[i]) for i in missing}

    def notes(self) -> dict[str, int]:
        """Return the number of distinct inputs that were truncated in this process, by what they lost."""
        limit = self._reader.shown.limit if "_reader" in vars(self) else 0
        cut = self._reader.shown.cut if limit else {}
        return {f"inputs longer than the {limit} tokens of {self.name}: {what} truncated": n for what, n in cut.items()}

    def _shown(self, example: Example) -> Any:
        try:
            return self._reader.shown(example.prompt, example.completion)
        except DataError as error:
            return Failure(str(error), DataError)

    @cached_property
    def _reader(self) -> Any:
        from irlhf.models.classifier import load_reader

        return load_reader(self.name, self.revision, self.input, self.template)


def _folder(name: str, revision: str) -> Path:
    """Return the folder of the model's files; for the hub, download config.json to learn the commit."""
    if not name:
        raise ConfigError("hf needs a folder or a model on the hub, as in hf:some/reward-model")
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if folder.is_dir() or name.startswith((".", "/", "~")):
        problem = "this folder has no model" if folder.is_dir() else "no such folder"
        raise ConfigError(f"{name}: {problem}")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    set_up_hub_client()
    try:
        return Path(hf_hub_download(name, "config.json", revision=revision or None)).parent
    except (OSError, ValueError, HFValidationError) as error:
        raise lookup_error(name, "neither a folder nor a model on the hub", error) from error


def _template(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = "not UTF-8" if isinstance(error, ValueError) else error.strerror
        raise ConfigError(f"{path}: the input template cannot be read ({reason})") from error
    if not text.strip():
        raise ConfigError(f"{path}: the input template is empty")
    return text


def _link(config: dict[str, Any]) -> Any:
    """Return the link from logits to probabilities: softmax, unless the config says that labels are independent."""
    labels = len(config.get("id2label") or (0, 1))  # two labels are the default of config.json
    excluding = config.get("problem_type") in (None, "single_label_classification")
    return "softmax" if excluding and labels > 1 else "sigmoid"
