"""The dial: a chat template that renders what `irlhf sample` does."""

import json
from dataclasses import replace
from typing import Any

import jinja2.meta
import pytest
from chat_template_cases import (
    CALIBRATION,
    CHATML,
    CONVERSATIONS,
    SHOWN,
    SYSTEM,
    USER,
    expected,
    load_once,
    named,
    rendered,
    scaled,
    smooth,
    wishes,
)
from helpers import Bench, slow_after
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError

from irlhf.models.chat_template import _JINJA, AS_WRITTEN, UnsupportedTemplate, with_rewards, without_rewards
from irlhf.models.loading import load_tokenizer
from irlhf.models.prompt_encoding import PLAIN_CHAT, PromptEncoder
from irlhf.policy.escaping import ESCAPE
from irlhf.policy.policy_file import Policy, read_policy
from irlhf.policy.templates import Template, find_template, parse_template, shipped_templates

TEMPLATES = sorted(set(shipped_templates()) - {"plain"})
PLACES = ("end", "start", "both", "system")
SPELLINGS: list[dict[str, Any]] = [
    {},
    {"digits": 0},
    {"digits": 3},
    {"step": 0.05},
    {"step": 0.1, "digits": 1},
    {"step": 0.25, "span": [-2, 1]},
    {"kind": "integer"},
    {"kind": "bins", "count": 7},
    {"kind": "words", "words": ["awful", "so so", "per{fe}%ct"]},
]
NUMBERS = (
    0,
    1,
    0.5,
    0.125,
    0.375,
    0.25,
    0.005,
    0.015,
    0.025,
    0.999,
    -0.0,
    -0.001,
    -3,
    1.5,
    2.675,
    0.5 / 99,
    1e-9,
    1e30,
)


@pytest.fixture(scope="session")
def tokenizer(bench: Bench) -> Any:
    return load_tokenizer(str(bench.policy))


@pytest.fixture(scope="session")
def policy(bench: Bench) -> Policy:
    return smooth(read_policy(bench.policy))


def test_a_policy_is_asked_by_name(policy: Policy, tokenizer: Any) -> None:
    text = rendered(tokenizer, with_rewards(policy, PLAIN_CHAT, tokenizer), [USER], short=0.9, colour=0.25)
    assert text == "Human: How do I repot a fern?\n\nshort: 0.90\ncolour: 0.25\n\nAssistant:"


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("place", PLACES)
def test_every_template_reads_as_in_sample(name: str, place: str, policy: Policy, tokenizer: Any) -> None:
    template = find_template(name).model_copy(
        update={"position": place, "descriptions": {"short": 'few "words"\n{% x %}'}}
    )
    own = replace(policy, template=template)
    text = with_rewards(own, PLAIN_CHAT, tokenizer)
    assert len(text.encode()) < 32_000
    for prompt in CONVERSATIONS:
        for asked in ({}, {"colour": 0.25}, {"short": 0.9, "colour": 0.0}):
            assert rendered(tokenizer, text, prompt, **asked) == expected(tokenizer, own, prompt, asked)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", ["quantile", "zscore"])
def test_every_number_is_spelled_as_in_sample(
    spelling: dict[str, Any], kind: str, policy: Policy, tokenizer: Any
) -> None:
    own = scaled(replace(policy, template=parse_template({"spelling": spelling}, "here")), kind)
    text = with_rewards(own, PLAIN_CHAT, tokenizer)
    for number in NUMBERS:
        wanted = expected(tokenizer, own, [USER], {"short": number})
        assert rendered(tokenizer, text, [USER], short=number) == wanted
        assert rendered(tokenizer, text, [USER], short=f" {number} ") == wanted


@given(
    number=st.floats(-1e3, 1e3) | st.integers(-3, 3),
    spelling=st.sampled_from(SPELLINGS),
    kind=st.sampled_from(["quantile", "none"]),
)
@settings(max_examples=30, deadline=None)
def test_any_number_is_spelled_as_in_sample(number: float, spelling: dict[str, Any], kind: str, bench: Bench) -> None:
    own = scaled(read_policy(bench.policy), kind)
    own = replace(own, template=Template.model_validate({"spelling": spelling}))
    tokenizer = load_once(bench.policy)
    assert rendered(tokenizer, with_rewards(own, SHOWN, tokenizer), [USER], colour=number) == json.dumps(
        PromptEncoder(tokenizer, own.template, own.names).messages([USER], wishes(own, {"colour": number}))
    )


@pytest.mark.parametrize("value", ["0.6..", "..0.4", "1..", "...5", " 7.. ", "-2..", "+.5e-1", "1."])
def test_a_threshold_is_asked_for_as_in_sample(value: str, policy: Policy, tokenizer: Any) -> None:
    for kind in ("quantile", "zscore"):
        own = scaled(replace(policy, template=find_template("at-least")), kind)
        text = rendered(
            tokenizer, with_rewards(own, PLAIN_CHAT, tokenizer), [USER], rewards={"short": value, "colour": None}
        )
        assert text == expected(tokenizer, own, [USER], {"short": value})


BAD = ["data", "p90", "0:1:0.1", "uniform", "~0.6..", "0.2..0.9", "..", "", "high", "nan", "inf", "1e999", "1_0", "0x1"]


@pytest.mark.parametrize("value", [*BAD, True, [0.9], {"a": 1}, float("nan"), float("inf"), 1e101, -(10**400)])
def test_what_is_no_number_is_sent_to_sample(value: object, policy: Policy, tokenizer: Any) -> None:
    own = replace(policy, template=find_template("at-least"))
    with pytest.raises(TemplateError, match=r'^short=.*"0.6..".*"..0.4".*irlhf sample'):
        rendered(tokenizer, with_rewards(own, PLAIN_CHAT, tokenizer), [USER], short=value)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"short": "0.6.."}, "does not support such thresholds"),
        ({"rewards": {"shrot": 0.9}}, r"unknown reward 'shrot' \(the policy has short, colour\)"),
        ({"rewards": 0.9}, "rewards: expected names and numbers"),
        ({"rewards": ["short"]}, "rewards: expected names and numbers"),
        ({"short": 0.9, "rewards": {"short": 0.8}}, "short is requested twice"),
    ],
)
def test_what_cannot_be_asked_is_told_why(asked: dict[str, Any], told: str, policy: Policy, tokenizer: Any) -> None:
    with pytest.raises(TemplateError, match=told):
        rendered(tokenizer, with_rewards(policy, PLAIN_CHAT, tokenizer), [USER], **asked)


@pytest.mark.parametrize(
    "asked", [{}, {"short": None}, {"rewards": None}, {"rewards": {}}, {"rewards": {"short": None}}]
)
def test_nothing_asked_is_nothing_added(asked: dict[str, Any], policy: Policy, tokenizer: Any) -> None:
    text = with_rewards(policy, PLAIN_CHAT, tokenizer)
    assert rendered(tokenizer, text, [USER], **asked) == "Human: How do I repot a fern?\n\nAssistant:"


@pytest.mark.parametrize("prompt", CONVERSATIONS)
def test_messages_whose_rewards_are_written_are_left_as_they_are(
    prompt: list[dict[str, Any]], policy: Policy, tokenizer: Any
) -> None:
    asked = {"short": 0.9, "colour": 0.25}
    written = PromptEncoder(tokenizer, policy.template, policy.names).messages(prompt, wishes(policy, asked))
    text = with_rewards(policy, PLAIN_CHAT, tokenizer)
    assert rendered(tokenizer, text, written, **AS_WRITTEN) == expected(tokenizer, policy, prompt, asked)
    assert rendered(tokenizer, text, written) != expected(tokenizer, policy, prompt, asked)


def test_rewards_without_a_user_turn_are_refused(policy: Policy, tokenizer: Any) -> None:
    text = with_rewards(policy, PLAIN_CHAT, tokenizer)
    assert rendered(tokenizer, text, [SYSTEM]) == "System: Be kind.\n\nAssistant:"
    with pytest.raises(TemplateError, match="no user turn"):
        rendered(tokenizer, text, [SYSTEM], short=0.9)


NAMES = (
    "short-answer",
    "tools",
    "padding",
    "class",
    "true",
    "self",
    "loop",
    "range",
    "keys",
    "irlhf",
    "rewards",
    "größe",
    "name",
    "message",
    "line",
)
FREE = {"class", "keys", "größe", "name", "message", "line"}


@pytest.mark.parametrize("name", NAMES)
def test_a_reward_of_any_name_can_be_asked_for(name: str, policy: Policy, tokenizer: Any) -> None:
    own = named(policy, [name, "good"])
    text = with_rewards(own, "{{ tools or '' }}{{ range(1) | join }}" + PLAIN_CHAT, tokenizer)
    wanted = expected(tokenizer, own, [USER], {name: 0.9}).replace("Human", "0Human", 1)
    assert rendered(tokenizer, text, [USER], rewards={name: 0.9}) == wanted
    if name in FREE:
        assert rendered(tokenizer, text, [USER], **{name: 0.9}) == wanted


def test_a_name_that_the_bases_template_uses_is_left_to_it(policy: Policy, tokenizer: Any) -> None:
    own = named(policy, ["style", "good"])
    text = with_rewards(own, "{{ style | default('none') }} " + PLAIN_CHAT, tokenizer)
    assert rendered(tokenizer, text, [USER], style="terse", rewards={"style": 0.9}) == (
        "terse Human: How do I repot a fern?\n\nstyle: 0.90\n\nAssistant:"
    )


def test_a_server_that_looks_for_variables_finds_the_rewards(policy: Policy, tokenizer: Any) -> None:
    """As vLLM does, which drops what a chat template has no variable for."""
    text = with_rewards(named(policy, ["helpful", "short-answer", "padding"]), PLAIN_CHAT, tokenizer)
    assert {"helpful", "rewards"} <= jinja2.meta.find_undeclared_variables(_JINJA.parse(text))


LLAMA = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{#- The system message goes first. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{%- macro turn(message) %}{{- '<|' + message.role + '|>' + message['content'] | trim + '\\n' }}{%- endmacro %}
{{- system_message }}
{%- set ns = namespace(count=0) %}
{%- for message in messages %}
    {%- if message.content is not string %}{%- continue %}{%- endif %}
    {%- set ns.count = ns.count + 1 %}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{ turn(message) }}{%- endgeneration %}
    {%- else %}
        {{- turn(message) }}
    {%- endif %}
{%- endfor %}
{{- ns.count ~ messages | length ~ turn(messages[-1]) }}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{%- endif %}
"""
MACRO = "{% macro all() %}{% for m in messages %}{{ m.content }}{% endfor %}{% endmacro %}{{ all() }}"
BASES = [
    PLAIN_CHAT,
    CHATML,
    LLAMA,
    MACRO,
    "\n" + CHATML,
    "  {% if true %}x{% endif %}\n",
    "\t{{- 1 }}",
    "{%- if 1 %} y {% endif %}",
]
BASES += [
    "{# of the base #}\n  {% set x = 1 %}\n\n",
    "text\n\n{% raw %}{{ x }}{% endraw %}",
    "{% set messages = messages[-1:] %}" + CHATML,
]


@pytest.mark.parametrize("base", BASES)
def test_the_bases_own_chat_template_runs_as_it_is(base: str, policy: Policy, bench: Bench) -> None:
    own = load_tokenizer(str(bench.policy))
    own.chat_template = base
    text = with_rewards(policy, base, own)
    for prompt in CONVERSATIONS[:5]:
        for asked in ({}, {"short": 0.9, "colour": 0.25}):
            assert rendered(own, text, prompt, **asked) == expected(own, policy, prompt, asked)
    assert without_rewards(text) == base


def test_tokens_that_an_assistant_wrote_are_told_apart(policy: Policy, tokenizer: Any) -> None:
    said = [USER, {"role": "assistant", "content": "So."}, {"role": "user", "content": "And?"}]
    options: dict[str, Any] = {"return_assistant_tokens_mask": True, "return_dict": True}
    found = tokenizer.apply_chat_template(
        said, chat_template=with_rewards(policy, LLAMA, tokenizer), short=0.9, **options
    )
    wrote = [one for one, mine in zip(found["input_ids"], found["assistant_masks"], strict=True) if mine]
    assert tokenizer.decode(wrote) == "<|assistant|>So.\n"


def test_a_last_answer_is_continued(policy: Policy, tokenizer: Any) -> None:
    said = [USER, {"role": "assistant", "content": "First"}]
    text = tokenizer.apply_chat_template(
        said,
        chat_template=with_rewards(policy, CHATML, tokenizer),
        tokenize=False,
        continue_final_message=True,
        short=0.9,
    )
    assert text.endswith("short: 0.90<|im_end|>\n<|im_start|>assistant\nFirst")


def test_a_conversation_that_the_base_refuses_is_refused(policy: Policy, tokenizer: Any) -> None:
    base = "{% if messages | length > 1 %}{{ raise_exception('roles must alternate') }}{% endif %}"
    with pytest.raises(TemplateError, match="roles must alternate"):
        rendered(tokenizer, with_rewards(policy, base, tokenizer), [USER, USER], short=0.9)


def parts(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": text} for text in texts]}]


def test_text_in_parts_is_read_as_lines(policy: Policy, tokenizer: Any) -> None:
    text = with_rewards(policy, PLAIN_CHAT, tokenizer)
    joined = expected(tokenizer, policy, [{"role": "user", "content": "Hello\nshort: 1"}], {"short": 0.9})
    assert ESCAPE in joined
    assert rendered(tokenizer, text, parts("Hello", "short: 1"), short=0.9) == joined
    assert rendered(tokenizer, text, parts("Hello\nshort: 1"), short=0.9) == joined
    assert rendered(tokenizer, text, [{"role": "user", "content": ["Hello", "short: 1"]}], short=0.9) == joined


@pytest.mark.parametrize("content", [[{"type": "image", "url": "x"}], {"text": "x"}, 7, [7], [["x"]]])
def test_a_message_that_is_no_text_is_refused(content: object, policy: Policy, tokenizer: Any) -> None:
    with pytest.raises(TemplateError, match="supports only text"):
        rendered(tokenizer, with_rewards(policy, PLAIN_CHAT, tokenizer), [{"role": "user", "content": content}])


def test_parts_cannot_hide_a_special_token(policy: Policy, tokenizer: Any) -> None:
    text = rendered(tokenizer, with_rewards(policy, PLAIN_CHAT, tokenizer), parts("<|end|>", "short: 0.90"), short=0.5)
    assert text == "Human: < |end|>\n\\s hort: 0.90\n\nshort: 0.50\n\nAssistant:"


@pytest.mark.parametrize("number", [*NUMBERS, 0.2, 0.31, 0.55, 0.8, 0.3, 0.42, 0.79, 0.81])
def test_a_number_goes_through_what_was_measured(number: float, policy: Policy, tokenizer: Any) -> None:
    exact = Template().spelling.model_copy(update={"digits": 6})
    template = find_template("at-least").model_copy(update={"spelling": exact})
    own = replace(policy, calibration=CALIBRATION, template=template)
    text = with_rewards(own, PLAIN_CHAT, tokenizer)
    asked = {"short": number, "colour": number}
    assert rendered(tokenizer, text, [USER], **asked) == expected(tokenizer, own, [USER], asked)
    bound = {"short": f"{number}.."}
    assert rendered(tokenizer, text, [USER], **bound) == expected(tokenizer, own, [USER], bound)


@pytest.mark.parametrize("spelling", [*SPELLINGS, {"digits": 6}])
@pytest.mark.parametrize(
    "rows", slow_after(1, [(0.031, 0.032, 0.5, 0.505, 0.52, 0.9), "bench", (0.5,), (0.0, 0.5, 1.0)])
)
def test_a_number_that_no_training_row_has_becomes_the_one_of_sample(
    spelling: dict[str, Any], rows: tuple[float, ...] | str, bench: Bench, tokenizer: Any
) -> None:
    own = replace(read_policy(bench.policy), template=parse_template({"spelling": spelling}, "here"))
    if not isinstance(rows, str):
        scale = replace(own.rewards[0].scale, xs=rows, ys=rows)
        own = replace(own, rewards=tuple(replace(card, scale=scale) for card in own.rewards))
    text = with_rewards(own, SHOWN, tokenizer)
    assert len(text) < 32_000
    for number in [i / 200 for i in range(-1, 202)]:
        written = PromptEncoder(tokenizer, own.template, own.names).messages([USER], wishes(own, {"short": number}))
        assert json.loads(rendered(tokenizer, text, [USER], short=number)) == written


def test_what_was_measured_otherwise_than_a_server_draws_is_left_out(policy: Policy, tokenizer: Any) -> None:
    cold = replace(policy, calibration=replace(CALIBRATION, decoding={"temperature": 0.5}))
    assert with_rewards(cold, PLAIN_CHAT, tokenizer) == with_rewards(policy, PLAIN_CHAT, tokenizer)


UNFIT = [
    {"line": "{{ name }}: {{ value }} ({{ value }})"},
    {"line": "{{ name }}: {{ value }}{% if value > '0.5' %}!{% endif %}"},
    {"line": "{{ name }}: {{ value | replace('0.', '.') }}0.50"},
    {"block": "{{ lines | sort | join('\n') }}"},
    {"block": "{{ lines | join('\n') | upper }}"},
]


@pytest.mark.parametrize("tree", UNFIT)
def test_a_template_that_no_dial_can_follow_is_told(tree: dict[str, str], policy: Policy, tokenizer: Any) -> None:
    with pytest.raises(UnsupportedTemplate, match=r"its (line|block)"):
        with_rewards(replace(policy, template=Template.model_validate(tree)), PLAIN_CHAT, tokenizer)


FIT = [
    {"block": "I want {{ lines[:-1] | join(', ') }}{{ ' and ' if lines | length > 1 }}{{ lines[-1] }}."},
    {"block": "{{ lines | length }} wish{{ 'es' if lines | length > 1 }}:\n{{ lines | join('\n') }}"},
    {"line": "{# note #}\n<{{ name | upper }} is='{{ value }}'/> %}{% raw %}{{ x }}{% endraw %}\t"},
]


@pytest.mark.parametrize("tree", FIT)
def test_a_template_of_ones_own_reads_as_in_sample(tree: dict[str, str], policy: Policy, tokenizer: Any) -> None:
    own = replace(named(policy, ["a", "b", "c"]), template=parse_template(tree, "here"))
    text = with_rewards(own, PLAIN_CHAT, tokenizer)
    for asked in ({"a": 0.1}, {"a": 0.1, "c": 0.3}, {"c": 0.3, "b": 0.2, "a": 0.1}):
        for prompt in CONVERSATIONS:
            assert rendered(tokenizer, text, prompt, **asked) == expected(tokenizer, own, prompt, asked)
