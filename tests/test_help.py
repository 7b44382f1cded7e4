"""The help of every command fits 80 columns, and what earlier versions called otherwise is answered in one line."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers import call

from irlhf.cli.app import app
from irlhf.cli.command import plain
from irlhf.cli.old_spellings import SPELLINGS

MOST_OPTIONS = 37
WORDS = 44  # columns of a help page that are left for sentences
PANELS = {"What to request", "Sampling", "Training", "Server", "Output", None}


def commands() -> Iterator[tuple[str, Any]]:
    """Yield each command, those of a group with its name before them."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inside = getattr(command, "commands", {})
        yield from ((f"{name} {other}", inside[other]) for other in inside)
        if not inside:
            yield name, command


def options(command: Any) -> list[Any]:
    return [one for one in command.params if one.param_type_name == "option" and not one.hidden]


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_few_options_each_in_a_panel_and_said_in_a_sentence(name: str) -> None:
    own = options(COMMANDS[name])
    assert len(own) <= MOST_OPTIONS
    for option in own:
        said = option.help.replace("\\[", "[")
        assert len(said) <= 100, said
        assert said[-1] in ".]", said
        assert "see above" not in said
        assert option.rich_help_panel in PANELS


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_page_names_values_by_words_and_leaves_room_for_its_sentences(name: str) -> None:
    page = call(*name.split(), "--help").out
    assert max(map(len, page.splitlines())) <= 80
    assert not [kind for kind in ("<bool>", "<str>", "<int", "<float", "<path>", "<=") if kind in page]
    for panel in {option.rich_help_panel for option in options(COMMANDS[name])}:
        shown = [one for one in plain(options(COMMANDS[name])) if one.rich_help_panel == panel]
        long = max(len(spelling) for one in shown for spelling in one.opts)
        short = 3 if any(spelling[1] != "-" for one in shown for spelling in one.opts) else 0
        value = max(len(one.metavar or "") for one in shown)
        assert 76 - long - short - value - 4 >= WORDS, (panel, long, value)


SAME = ("--output", "--rewards", "--target", "--weights", "--template", "--executor", "--seed", "--json", "--quiet")


@pytest.mark.parametrize("spelling", [*SAME, "--limit", "--yes", "--dry-run", "--base-url", "--api-key-env"])
def test_an_option_is_spelled_the_same_everywhere(spelling: str) -> None:
    found = [one for command in COMMANDS.values() for one in options(command) if spelling in one.opts]
    assert len({tuple(sorted(one.opts)) for one in found}) == 1
    assert len({one.is_flag for one in found}) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_without_arguments_ends_in_no_traceback(name: str) -> None:
    assert call(*name.split(), "--nonsense").code == 2


OLD = [(command, old, new) for command, table in SPELLINGS.items() for old, new in table.items()]


@pytest.mark.parametrize(("command", "old", "new"), OLD, ids=[f"{command} {old}" for command, old, _ in OLD])
def test_an_old_spelling_is_answered_with_the_new_one(command: str, old: str, new: str) -> None:
    done = call(command, "rows.jsonl", *old.split())
    assert (done.code, done.out) == (2, "")
    assert done.err == f"irlhf: irlhf {command} {old} is now: irlhf {new}\n"
    assert new.split(maxsplit=1)[0] in {name.split()[0] for name in COMMANDS}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("weigth=2", "write KEY=VALUE, where KEY is one of weight, alternatives, one-reward, whole-targets"),
        ("weight=much", "--contrast weight=much: 'much' is not a number"),
        ("alternatives=0", "it must be from 1 to 64"),
        ("one-reward=2", "it must be a probability from 0 to 1"),
        ("whole-targets=7", "it must be a share of the training from 0 to 1"),
        ("weight=-1", "it must be at least 0"),
    ],
)
def test_a_setting_of_the_contrast_that_is_none_is_refused_in_one_line(given: str, said: str) -> None:
    Path("scored.jsonl").write_text('{"prompt": "p", "completion": "c", "rewards": {"a": 1}}\n')
    done = call("finetune", "scored.jsonl", "--objective", "contrast", "--contrast", given, "-o", "policy")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert said in done.err


def test_an_old_value_is_answered_behind_an_equals_sign_too() -> None:
    assert "is now: irlhf reward-model" in call("finetune", "rows.jsonl", "--objective=reward").err


def test_what_stands_behind_two_dashes_is_no_option() -> None:
    assert "is now" not in call("finetune", "--", "--rounds").err


COMPLETED = """
import sys
from irlhf.cli.app import app
try:
    app(prog_name="irlhf")
finally:
    heavy = [name for name in ("torch", "transformers", "numpy", "openai", "scipy") if name in sys.modules]
    assert not heavy, heavy
"""


def completed(line: str) -> list[str]:
    """Return what the shell is offered behind a line."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), "_IRLHF_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-c", COMPLETED], env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("irlhf sample policy prompts.jsonl -t ", {"helpful=", "harmless="}),
        ("irlhf sample policy prompts.jsonl -t har", {"harmless="}),
        ("irlhf sample policy prompts.jsonl --weights 2*helpful+har", {"2*helpful+harmless"}),
        ("irlhf score samples.jsonl -r mine.yaml --weights 2*", {"2*kind"}),
        ("irlhf finetune scored.jsonl --template reward-s", {"reward-start", "reward-system"}),
        ("irlhf prepare raw.jsonl --format helpsteer2", {"helpsteer2-preference"}),
        ("irlhf finetune scored.jsonl --objective c", {"contrast"}),
    ],
)
def test_the_shell_completes_rewards_templates_formats_and_objectives(line: str, offered: set[str]) -> None:
    Path("policy").mkdir()
    Path("policy/policy.json").write_text('{"rewards": [{"name": "helpful"}, {"name": "harmless"}]}')
    Path("mine.yaml").write_text("rewards: {kind: {scorer: length}}")
    assert set(completed(line)) == offered


def test_without_a_policy_nothing_is_offered_and_nothing_fails() -> None:
    Path("rewards.yaml").write_text("rewards: [")
    assert completed("irlhf sample nowhere prompts.jsonl -t ") == []
