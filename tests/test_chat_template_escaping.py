"""The dial is no easier to fool than `irlhf sample`."""

import json
import os
import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from chat_template_cases import SHOWN, load_once, named, rendered, smooth
from helpers import Bench
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from irlhf.models.chat_template import with_rewards
from irlhf.models.loading import load_tokenizer
from irlhf.models.prompt_encoding import PromptEncoder
from irlhf.policy.escaping import ESCAPE, folded
from irlhf.policy.policy_file import Policy, read_policy
from irlhf.policy.templates import Template, find_template, parse_template


@pytest.fixture(scope="session")
def tokenizer(bench: Bench) -> Any:
    return load_tokenizer(str(bench.policy))


@pytest.fixture(scope="session")
def policy(bench: Bench) -> Policy:
    return smooth(read_policy(bench.policy))


def disarmed(tokenizer: Any, policy: Policy, text: str) -> tuple[str, str]:
    """Return what becomes of a user's text in sample, and under the dial."""
    prompt = [{"role": "user", "content": text}]
    (mine,) = PromptEncoder(tokenizer, policy.template, policy.names).messages(prompt, {})
    (served,) = json.loads(
        rendered(tokenizer, cached_dial(policy.template.model_dump_json(), policy, tokenizer), prompt)
    )
    return mine["content"], served["content"]


_DIALS: dict[tuple[str, tuple[str, ...]], str] = {}


def cached_dial(key: str, policy: Policy, tokenizer: Any) -> str:
    if (key, policy.names) not in _DIALS:
        _DIALS[key, policy.names] = with_rewards(policy, SHOWN, tokenizer)
    return _DIALS[key, policy.names]


TEXTS = int(os.environ.get("IRLHF_FUZZ_TEXTS") or 50)
ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


def held(text: str) -> list[str]:
    return re.split(f"[{ENDS}]", text)


SIGNS = ["\r\n", "- ", "> ", "1. ", "2) ", "12", *'\n\u2028\\ \t*"#[_.$—…“']
WORDS = [
    "short",
    "Short",
    "SHORT:",
    "short: 0.90",
    "colour",
    ":",
    " : ",
    "0.5",
    "at least",
    "<|end|>",
    "a",
    "x1. ",
    "whose ",
]
WORDS += ["whose ", "Write an answer whose score for short is", "whose score for colour is 0.20", "olour: 1.00"]
# Spaces, marks and controls that are not seen; letters, digits and signs that are read as others.
EXOTIC = list(
    "\u200b\u00a0\ufeff\u00ad\u0301\u3164\x00\x1c\x85\u00a8\uff1a\uff53\U0001d42c\u0455\u043e\u0421\ufb05\u00df"
)
EXOTIC += list("\ufb05\u00df\u2474\u00b2\u00bd\uff3c\u00b7\u0903\u203f\u2488\u0663")
OWN = ["end", "sentences", "described", "digits", "marks"]


def own_template(kind: str) -> Template:
    return {
        "end": Template(),
        "sentences": find_template("instruction"),
        "described": find_template("described").model_copy(update={"descriptions": {"short": "few words, naïve"}}),
        "digits": parse_template(
            {"line": "1. {{ name }} — {{ value }}", "block": "[{{ lines | join('; ') }}]"}, "here"
        ),
        "marks": parse_template({"line": "· {{ name }} \u0903 {{ value }}"}, "here"),
    }[kind]


@given(
    pieces=st.lists(st.sampled_from(SIGNS + WORDS) | st.text(st.characters(max_codepoint=126), max_size=3), max_size=9),
    kind=st.sampled_from(OWN[:4]),
)
@pytest.mark.fuzz
@settings(max_examples=TEXTS, deadline=None)
def test_text_without_exotic_signs_is_escaped_byte_for_byte_as_in_sample(
    pieces: list[str], kind: str, bench: Bench
) -> None:
    own = replace(read_policy(bench.policy), template=own_template(kind))
    mine, served = disarmed(load_once(bench.policy), own, "".join(pieces))
    assert served == mine


@given(
    pieces=st.lists(st.sampled_from(SIGNS + WORDS + EXOTIC) | st.text(max_size=3), max_size=9),
    kind=st.sampled_from(OWN),
)
@example(pieces=["\u0663", "…", "SHORT:"], kind="end")
@example(pieces=["1", "\uff0e", " SHORT:"], kind="end")
@pytest.mark.fuzz
@settings(max_examples=TEXTS, deadline=None)
def test_every_line_that_sample_escapes_is_escaped(pieces: list[str], kind: str, bench: Bench) -> None:
    own = replace(read_policy(bench.policy), template=own_template(kind))
    mine, served = disarmed(load_once(bench.policy), own, "".join(pieces))
    assert served.replace(ESCAPE, "") == mine.replace(ESCAPE, "")
    for one, other in zip(held(mine), held(served), strict=True):
        assert other.count(ESCAPE) >= min(one.count(ESCAPE), 1 + one.replace(ESCAPE, "").count(ESCAPE))
        assert other != one.replace(ESCAPE, "") or ESCAPE not in one


@cache
def odd_characters() -> list[str]:
    """All characters that are read as others, or as none."""
    characters = map(chr, (*range(0xD800), *range(0xE000, 0x30000), *range(0xE0000, 0xE0200)))
    return [one for one in characters if folded(one) != one and one not in ENDS]


@pytest.mark.parametrize(
    ("kind", "names", "step"),
    [
        ("sentences", ("größe", "ﬁt"), 211),
        pytest.param("end", ("short", "colour"), 1, marks=pytest.mark.slow),
        *(
            pytest.param(kind, names, 31, marks=pytest.mark.slow)
            for kind in OWN
            for names in (("short",), ("größe", "ﬁt"), ("полезность", "도움"))
        ),
    ],
)
def test_no_character_at_all_hides_a_line_that_sample_escapes(
    kind: str, names: tuple[str, ...], step: int, policy: Policy, tokenizer: Any
) -> None:
    own = replace(named(policy, names), template=own_template(kind))
    line = own.template.block_of([own.template.reward_line(names[0], "0.90")]).split("\n")[-1].split("0.90")[0]
    odd = odd_characters()[::step]
    whole = "\n".join(
        f"{one}{line}\n{line[:2]}{one}{line[2:]}\n{one}{line[1:]}\n{line[:2]}{one}{line[3:]}\n{line.rstrip()[:-1]}{one}"
        f"\n1{one}{line}\n{one}) {line}"
        for one in odd
    )
    mine, served = disarmed(tokenizer, own, whole)
    lines = list(zip(whole.split("\n"), mine.split("\n"), served.split("\n"), strict=True))
    assert len(odd) > 10_000 / step
    assert sum(one != before for before, one, _ in lines) > 1000 / step
    assert [before for before, one, other in lines if one != before and other == before] == []


def test_a_token_that_holds_another_is_no_way_in(policy: Policy, bench: Bench) -> None:
    own, lines = load_tokenizer(str(bench.policy)), Template().vocabulary(["low", "slow"])
    own.add_tokens([AddedToken(line, normalized=False, special=True) for line in lines], special_tokens=True)
    ours = named(policy, ["low", "slow"])
    mine, served = disarmed(own, ours, "slow: 0.50 and low: 0.50, slow: 0.500")
    special = {number for number, token in own.added_tokens_decoder.items() if token.special}
    assert served == mine
    assert not special & set(own(served, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("base", ["tiny", "tokens", "at-least"])
def test_lines_that_are_tokens_are_parted_as_in_sample(base: str, policy: Policy, bench: Bench) -> None:
    own = load_tokenizer(str(bench.policy))
    template = Template() if base == "tiny" else find_template("bins" if base == "tokens" else base)
    lines = template.vocabulary(["short", "colour"])
    own.add_tokens([AddedToken(line, normalized=False, special=True) for line in lines], special_tokens=True)
    text = " ".join([*lines, "<|end|>", "short: 0.9 short: at least", "short: 0.905"])
    ours = replace(policy, template=template)
    served = json.loads(rendered(own, with_rewards(ours, SHOWN, own), [{"role": "user", "content": text}]))
    assert served == PromptEncoder(own, template, policy.names).messages(text, {})
    assert len(with_rewards(ours, SHOWN, own)) < 30_000
