"""The program's identifiers and file names use the field's words, not those that could mean many things."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from helpers import ROOT

BANNED = frozenset(
    [
        "card",
        "judge",
        "told",
        "said",
        "asked",
        "one",
        "found",
        "mine",
        "place",
        "hand",
        "hands",
        "sheet",
        "lesson",
        "desk",
        "gate",
        "dice",
        "talk",
        "habits",
        "crew",
        "story",
    ]
)
# A model card, a data card and an LLM judge are what the field calls them; exceptions of huggingface_hub say NotFound.
ALLOWED = re.compile(
    r"model[_-]card|data[_-]card|ModelCard|DataCard|DatasetCard|llm_judge|LLMJudge|judge_prompt|NotFoundError"
)
# Settings that runs record under these names: `--contrast one-reward` and `prepare --card` (a data card).
OPTIONS = {"one_reward"}
OPTIONS_BY_FILE = {"card": {"irlhf/cli/prepare.py", "irlhf/data/prepare.py", "irlhf/data/settings.py"}}

SOURCES = [path for path in sorted((ROOT / "irlhf").rglob("*.py")) if "files" not in path.parts]


def banned_words(identifier: str) -> set[str]:
    rest = ALLOWED.sub("", identifier)
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", rest)
    return {part.lower() for part in parts} & BANNED


def identifiers(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield node.lineno, name
            case ast.alias(name=name, asname=given):
                yield node.lineno, given or name.rsplit(".", 1)[-1]
            case ast.ExceptHandler(name=str(name)):
                yield node.lineno, name


def test_no_identifier_has_a_banned_word() -> None:
    wrong = []
    for path in SOURCES:
        file = path.relative_to(ROOT).as_posix()
        for line, name in identifiers(path):
            if name not in OPTIONS and file not in OPTIONS_BY_FILE.get(name, ()) and banned_words(name):
                wrong.append(f"{file}:{line}: {name}")
    assert wrong == []


def test_no_file_name_has_a_banned_word() -> None:
    files = [path for path in (ROOT / "irlhf").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    wrong = [path for path in files if any(map(banned_words, path.relative_to(ROOT / "irlhf").parts))]
    assert wrong == []


def test_the_check_splits_identifiers_at_underscores_and_capitals() -> None:
    assert banned_words("_run_card") == {"card"}
    assert banned_words("RunCard") == {"card"}
    assert banned_words("write_model_card") == set()
    assert banned_words("LLMJudge") == set()
    assert banned_words("placed") == set()
