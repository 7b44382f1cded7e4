"""Download data sets of the Hugging Face Hub into its cache, without running their code.

hub:ORG/NAME[:CONFIG][#SPLIT]      the rows in the parquet files that the Hub creates
hub:ORG/NAME/FILE[@REVISION]       a file of the repository
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from irlhf.core import console
from irlhf.core.errors import BackendError, ConfigError
from irlhf.io.hub_client import set_up_hub_client
from irlhf.io.jsonl import first_line

_HUB = "hub:"
_NAMED = re.compile(
    rf"{_HUB}(?P<repo>[\w.-]+/(?P<name>[\w.-]+))"
    r"(?:/(?P<file>[^@#]+)(?:@(?P<revision>[^@#]+))?|(?::(?P<config>[^/@#]+))?(?:#(?P<split>[^/@#]+))?)"
)
_CONVERTED = "refs/convert/parquet"  # branch with CONFIG/SPLIT/0000.parquet, created by the Hub
_PART = re.compile(r"(?P<config>[^/]+)/(?P<split>[^/]+)/(?P<part>[^/]+)\.parquet")
_DEFAULT = "default"  # name of the only configuration of a data set
_CUT = "partial-"  # prefix of a split that the Hub converts only in part
_MOST_LISTED = 20  # names shown in a message

NamedFiles = list[tuple[Path, str]]  # local files, and the prefixes of their row ids


def is_hub(source: Path) -> bool:
    """Return whether a source is a data set of the Hub."""
    return str(source).startswith(_HUB)


def fetch(source: Path) -> NamedFiles:
    """Download a data set and return its files. Raises ConfigError if it does not exist, BackendError if offline."""
    match = _NAMED.fullmatch(str(source))
    if not match:
        raise ConfigError(f"{source}: expected hub:ORG/NAME:CONFIG#SPLIT or hub:ORG/NAME/FILE@REVISION")
    set_up_hub_client()
    console.note(f"{source}: looking up files on the Hub")
    repo, name, file = match["repo"], match["name"], match["file"]
    if file:
        prefix = re.sub(r"\.(json|csv|tsv|txt|parquet).*", "", file).replace("/", "-")
        return [(_download(source, repo, file, match["revision"] or "main"), f"{name}-{prefix}")]
    split, parts = _find_split(source, repo, (match["config"], match["split"]))
    console.note(f"{source}: reading {_listed(parts)}")
    prefix = "-".join([name, *(part for part in split.split("#") if part != _DEFAULT)])
    return [
        (_download(source, repo, part, _CONVERTED), f"{prefix}-{Path(part).stem}" if len(parts) > 1 else prefix)
        for part in parts
    ]


def _find_split(source: Path, repo: str, requested: tuple[str | None, str | None]) -> tuple[str, list[str]]:
    """Return the name of the requested split, and its files. Raises ConfigError if it is not unique."""
    splits: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in _files(source, repo, _CONVERTED):
        part = _PART.fullmatch(path)
        if part:
            splits[part["config"], part["split"]].append(path)
    matches = [
        split_name
        for split_name in splits
        if all(name in (None, part) for name, part in zip(requested, split_name, strict=True))
    ]
    if len(matches) != 1:
        available = _listed([f"hub:{repo}:{config}#{split}" for config, split in sorted(matches or splits)])
        raise ConfigError(f"{source}: {'several splits' if matches else 'no such split'}; choose one of {available}")
    if matches[0][1].startswith(_CUT):
        console.warn(
            f"{source}: the Hub converts only the beginning of this large split; for all rows, use hub:ORG/NAME/FILE"
        )
    return "#".join(matches[0]), sorted(splits[matches[0]])


def _files(source: Path, repo: str, revision: str) -> list[str]:
    from huggingface_hub import HfApi, RepoFile

    with _hub_errors(source, repo):
        tree = HfApi().list_repo_tree(repo, recursive=True, revision=revision, repo_type="dataset")
        return sorted(entry.path for entry in tree if isinstance(entry, RepoFile))


def _download(source: Path, repo: str, file: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with _hub_errors(source, repo):
        try:
            return Path(hf_hub_download(repo, file, repo_type="dataset", revision=revision))
        except RemoteEntryNotFoundError as error:
            available = _listed(_files(source, repo, revision))
            raise ConfigError(f"{source}: no such file in the data set; choose one of {available}") from error


@contextmanager
def _hub_errors(source: Path, repo: str) -> Iterator[None]:
    """Convert errors of the Hub client to ConfigError and BackendError with one line."""
    from httpx2 import HTTPError
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        page = f"https://huggingface.co/datasets/{repo}"
        raise ConfigError(f"{source}: accept its terms at {page}, and set HF_TOKEN to your token") from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(f"{source}: no such data set on the Hub, or a private one (set HF_TOKEN)") from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(
            f"{source}: no such revision, or the Hub has no parquet files of it; use a file: hub:{repo}/FILE"
        ) from error
    except errors.HFValidationError as error:
        raise ConfigError(f"{source}: invalid data set name ({first_line(error):.120})") from error
    except (OSError, HTTPError) as error:
        offline = isinstance(error, errors.OfflineModeIsEnabled)
        reason = "offline" if offline else first_line(error.__cause__ or error)
        raise BackendError(f"{source}: cannot reach the Hub ({reason:.120}); try again, or use a local file") from error


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED:,} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more
