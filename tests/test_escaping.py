"""Prompts that try to speak as a reward: what the policy reads is what was asked, and nothing else.

IRLHF_FORGED=100000 pytest tests/test_escaping.py     as many prompts as docs/asking.md speaks of
"""

import os
import random
import re
from collections.abc import Iterator
from typing import Any
from unicodedata import normalize

import pytest
from helpers import Bench

from irlhf.models.loading import load_tokenizer
from irlhf.models.prompt_encoding import PromptEncoder
from irlhf.policy.policy_file import Policy, read_policy
from irlhf.policy.templates import Bound, RequestedValue, Template, find_template

NAMES = ("helpful", "harmless")
PROMPTS = int(os.environ.get("IRLHF_FORGED", "1500"))  # in all
TEMPLATES = ("reward-end", "reward-both", "at-least", "words", "described")

# What forgers build with: names and values in many guises, marks, ends of lines, signs without ink, commands.
WIDE = {name: name.translate({ord(c): ord(c) + 0xFEE0 for c in name}) for name in NAMES}
GUISES = [
    guise
    for name in NAMES
    for guise in (name, name.upper(), WIDE[name], name.replace("e", "\u0435"), f"{name[:3]}\u200b{name[3:]}")
]
VALUES = ["0.99", "1", "at least 0.90", "highest", "bin20", "\u0660.\u0669", "\uff19\uff19"]
MARKS = ["", "> ", "- ", "* ", "1. ", "## ", "**", "`", "“", "\t", " ", "\u200b", "\\", "| "]
COLONS = [": ", ":", " : ", "\uff1a ", "\u02d0 ", "=", " is "]
ENDS = ["\n", "\n\n", "\r", "\r\n", "\u2028", "\u0085", "\v", " ", "\u00a0", ""]
COMMANDS = ["{{ name }}", "{% raw %}", "<|end|>", "Assistant:", "Human:", "</s>", "short: 0.95", "colour: 0.95"]
WORDS = ["How", "do", "I", "repot", "a fern?", "Please", "be", "kind", "café", "日本語", "🌿"]


def forged(rng: random.Random) -> str:
    """Return a prompt of a few pieces, most of which look like something they are not."""
    pieces = []
    for _ in range(rng.randint(1, 6)):
        kind = rng.random()
        if kind < 0.6:
            pieces.append(rng.choice(MARKS) + rng.choice(GUISES) + rng.choice(COLONS) + rng.choice(VALUES))
        else:
            pieces.append(rng.choice(COMMANDS if kind < 0.75 else WORDS))
        pieces.append(rng.choice(ENDS))
    return "".join(pieces)


def wishes(rng: random.Random, template: Template) -> dict[str, RequestedValue]:
    """Return what is asked: some of the rewards, some as thresholds where the template knows them."""
    asked: dict[str, RequestedValue] = {}
    for name in NAMES:
        if rng.random() < 0.8:
            number = round(rng.random(), 2)
            bound = len(template.kinds) > 1 and rng.random() < 0.5
            asked[name] = Bound(rng.choice(["at_least", "at_most"]), number) if bound else number
    return asked


def spoken(text: str) -> list[str]:
    """Read a prompt as a careless model might: every line that says a reward, unless a backslash stands before it."""
    found = []
    for line in re.split(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", text):
        seen = normalize("NFKC", line).casefold().replace("\u0435", "e")
        seen = "".join(c for c in seen if c.isprintable() and c != "\u200b")
        if re.match(rf"[^\w\\]*(?:\d+[.)][^\w\\]*)*({'|'.join(NAMES)})[\s*_`]*:", seen):
            found.append(line)
    return found


@pytest.mark.fuzz
@pytest.mark.parametrize("name", TEMPLATES)
def test_no_text_speaks_as_a_reward(name: str) -> None:
    template = find_template(name)
    rng = random.Random(name)
    for _ in range(PROMPTS // (len(TEMPLATES) + 1)):
        asked = wishes(rng, template)
        (message,) = template.render(forged(rng), asked, NAMES)
        lines = [line for line in template.reward_block(asked).split("\n") if ":" in line]
        wanted = lines * 2 if template.position == "both" else lines
        assert spoken(message["content"]) == wanted, message["content"]


@pytest.fixture(scope="module")
def reader(bench: Bench) -> tuple[PromptEncoder, Policy]:
    policy = read_policy(bench.policy)
    return PromptEncoder(load_tokenizer(str(bench.policy)), policy.template, policy.names), policy


def read_back(chat: PromptEncoder, ids: list[int]) -> Iterator[str]:
    """Yield the lines that reached the model as tokens of their own."""
    for token in ids:
        known: Any = chat.tokenizer.added_tokens_decoder.get(token)
        if known is not None and known.special:
            yield known.content


@pytest.mark.fuzz
def test_no_text_becomes_the_token_of_a_reward(reader: tuple[PromptEncoder, Policy]) -> None:
    chat, policy = reader
    rng = random.Random("tokens")
    for _ in range(PROMPTS // (len(TEMPLATES) + 1)):
        asked = {name: round(rng.random(), 2) for name in policy.names if rng.random() < 0.8}
        prompt = [{"role": "system", "content": forged(rng)}, {"role": "user", "content": forged(rng)}]
        ids = chat.prompt(prompt, asked, room=2**20).ids
        lines = [policy.template.reward_line(name, policy.template.spelling(n)) for name, n in asked.items()]
        assert list(read_back(chat, ids)) == lines
