"""Data sets of the Hugging Face Hub, fetched into its cache and read as any other file; no code of theirs runs.

hub:ORG/NAME[:CONFIG][#SPLIT]      rows as the Hub itself keeps them in parquet
hub:ORG/NAME/FILE[@REVISION]       a file as its authors keep it
"""

import logging
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from irlhf.core import console
from irlhf.core.errors import BackendError, ConfigError
from irlhf.io.jsonl import first_line

_HUB = "hub:"
_NAMED = re.compile(
    rf"{_HUB}(?P<repo>[\w.-]+/(?P<name>[\w.-]+))"
    r"(?:/(?P<file>[^@#]+)(?:@(?P<revision>[^@#]+))?|(?::(?P<config>[^/@#]+))?(?:#(?P<split>[^/@#]+))?)"
)
_CONVERTED = "refs/convert/parquet"  # the branch that the Hub makes of a data set, CONFIG/SPLIT/0000.parquet
_PART = re.compile(r"(?P<config>[^/]+)/(?P<split>[^/]+)/(?P<part>[^/]+)\.parquet")
_DEFAULT = "default"  # the configuration of a data set that has but one
_CUT = "partial-"  # before a split of which the Hub converts the beginning alone
_MOST_LISTED = 20  # files of a list

NamedFiles = list[tuple[Path, str]]  # files here, and what their rows are to be called


def is_hub(source: Path) -> bool:
    """Return whether this names a data set of the Hub."""
    return str(source).startswith(_HUB)


def fetch(source: Path) -> NamedFiles:
    """Return the files of a data set, in order. Raises ConfigError for what is not there, BackendError off line."""
    named = _NAMED.fullmatch(str(source))
    if not named:
        raise ConfigError(f"{source}: write hub:ORG/NAME:CONFIG#SPLIT, or hub:ORG/NAME/FILE@REVISION")
    _hush()
    console.note(f"{source}: asking the Hub")
    repo, name, file = named["repo"], named["name"], named["file"]
    if file:
        called = re.sub(r"\.(json|csv|tsv|txt|parquet).*", "", file).replace("/", "-")
        return [(_download(source, repo, file, named["revision"] or "main"), f"{name}-{called}")]
    split, parts = _chosen(source, repo, (named["config"], named["split"]))
    console.note(f"{source}: reading {_listed(parts)}")
    called = "-".join([name, *(part for part in split.split("#") if part != _DEFAULT)])
    return [
        (_download(source, repo, part, _CONVERTED), f"{called}-{Path(part).stem}" if len(parts) > 1 else called)
        for part in parts
    ]


def _hush() -> None:
    """Keep the client's own words off the terminal, and its bars off anything else."""
    import huggingface_hub.utils.logging as client  # which sets its level when it is loaded
    from huggingface_hub.utils.tqdm import disable_progress_bars

    logging.getLogger(client.__name__.partition(".")[0]).setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        disable_progress_bars()


def _chosen(source: Path, repo: str, wanted: tuple[str | None, str | None]) -> tuple[str, list[str]]:
    """Return the one split that is meant, and its files."""
    splits: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in _files(source, repo, _CONVERTED):
        part = _PART.fullmatch(path)
        if part:
            splits[part["config"], part["split"]].append(path)
    fits = [
        split_name
        for split_name in splits
        if all(here in (None, there) for here, there in zip(wanted, split_name, strict=True))
    ]
    if len(fits) != 1:
        there = _listed([f"hub:{repo}:{config}#{split}" for config, split in sorted(fits or splits)])
        raise ConfigError(f"{source}: {'several splits' if fits else 'no such split'}; name one of {there}")
    if fits[0][1].startswith(_CUT):
        console.warn(f"{source}: the Hub converts the beginning of so large a split alone; name its files for all rows")
    return "#".join(fits[0]), sorted(splits[fits[0]])


def _files(source: Path, repo: str, revision: str) -> list[str]:
    from huggingface_hub import HfApi, RepoFile

    with _plain(source, repo):
        tree = HfApi().list_repo_tree(repo, recursive=True, revision=revision, repo_type="dataset")
        return sorted(entry.path for entry in tree if isinstance(entry, RepoFile))


def _download(source: Path, repo: str, file: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with _plain(source, repo):
        try:
            return Path(hf_hub_download(repo, file, repo_type="dataset", revision=revision))
        except RemoteEntryNotFoundError as error:
            there = _listed(_files(source, repo, revision))
            raise ConfigError(f"{source}: no such file in the data set, which holds {there}") from error


@contextmanager
def _plain(source: Path, repo: str) -> Iterator[None]:
    """Say what the Hub answers in one line."""
    from httpx2 import HTTPError
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        page = f"https://huggingface.co/datasets/{repo}"
        raise ConfigError(f"{source}: agree to its terms at {page}, and set HF_TOKEN to a token of yours") from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(f"{source}: no such data set on the Hub, or a private one (set HF_TOKEN)") from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(
            f"{source}: no such revision, or the Hub keeps no parquet of it; name a file: hub:{repo}/FILE"
        ) from error
    except errors.HFValidationError as error:
        raise ConfigError(f"{source}: no name of a data set ({first_line(error):.120})") from error
    except (OSError, HTTPError) as error:
        reason = first_line(error.__cause__ or error)
        raise BackendError(
            f"{source}: the Hub cannot be reached ({reason:.120}); try again, or name a file that is here"
        ) from error


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED:,} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more
