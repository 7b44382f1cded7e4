"""Where an answer begins and ends is measured with each chat template, and nothing of a row is lost without a word."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_template_bases import BASES, CHATML, tokenizer_of
from helpers import ROOT

from irlhf.core.example import Content
from irlhf.models.chat_template import with_opening, without_rewards
from irlhf.models.prompt_encoding import PLAIN_CHAT, PromptEncoder
from irlhf.models.turn_probe import Refused, turn_format
from irlhf.policy.templates import Template
from irlhf.policy.turn_format import TurnFormat

TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": '{"town": "Oslo"}'}}
CALLING: list[dict[str, Any]] = [{"role": "assistant", "content": None, "tool_calls": [CALL]}]
RESULT = {"role": "tool", "tool_call_id": "call_8f1e2a77", "content": "grey"}
USER = {"role": "user", "content": "Weather?"}
SYSTEM = {"role": "system", "content": "Answer in rhymes."}


@pytest.fixture(scope="module")
def encoders() -> dict[str, PromptEncoder]:
    return {name: encoder(base.text, base.eos, base.bos) for name, base in BASES.items()}


def encoder(template: str | None, eos: str = "<|im_end|>", bos: str = "", **turns: Any) -> PromptEncoder:
    tokenizer = tokenizer_of(template, eos, bos)
    found = turn_format(tokenizer)
    return PromptEncoder(tokenizer, Template(), ("r",), turns=TurnFormat(**{**vars(found), **turns}))


def learnt(chat: PromptEncoder, completion: Content, **options: Any) -> str:
    text: str = chat.tokenizer.decode(chat.completion(completion, [USER], **options).ids)
    return text


@pytest.mark.parametrize("name", BASES)
def test_the_probe_finds_the_prefix_the_opening_and_the_end_of_a_turn(
    name: str, encoders: dict[str, PromptEncoder]
) -> None:
    base, found = BASES[name], encoders[name].turn_format
    assert (found.prefix, found.opening, found.end) == (base.prefix, base.opening, base.end)
    assert encoders[name].tokenizer.convert_ids_to_tokens(list(found.ends)) == [base.end]


@pytest.mark.parametrize("name", BASES)
def test_a_prompt_ends_where_the_answer_begins_and_the_answer_ends_its_turn(
    name: str, encoders: dict[str, PromptEncoder]
) -> None:
    base, chat = BASES[name], encoders[name]
    assert chat.text([USER], {"r": 0.5}).endswith(base.prefix + base.opening)
    assert learnt(chat, "It rains.").lstrip() == f"It rains.{base.end}"
    assert learnt(chat, "It rains.", ended=False).lstrip() == "It rains."


@pytest.mark.parametrize("name", BASES)
def test_what_a_chat_template_drops_of_a_prompt_is_named(name: str, encoders: dict[str, PromptEncoder]) -> None:
    base, chat = BASES[name], encoders[name]
    assert chat.dropped([SYSTEM, USER], TOOLS) == ([] if base.tools else ["the tools"])


@pytest.mark.parametrize("name", BASES)
def test_a_tool_call_is_shown_with_its_arguments_encoded_once_or_refused(
    name: str, encoders: dict[str, PromptEncoder]
) -> None:
    if BASES[name].calls:
        text = learnt(encoders[name], CALLING)
        assert "get_weather" in text
        assert '{"town": "Oslo"}' in text
    else:
        with pytest.raises(Refused, match=r"drops the tool call|does not begin this answer with"):
            encoders[name].completion(CALLING, [USER])


@pytest.mark.parametrize("name", BASES)
def test_what_a_chat_template_drops_of_a_tool_result_is_named_or_the_prompt_is_refused(
    name: str, encoders: dict[str, PromptEncoder]
) -> None:
    prompt, dropped = [USER, *CALLING, RESULT], BASES[name].results
    if dropped is None:
        with pytest.raises(Refused, match="rejects this conversation"):
            encoders[name].text(prompt, {})
    else:
        assert encoders[name].dropped(prompt, []) == list(dropped)


@pytest.mark.parametrize("name", BASES)
def test_a_system_message_does_not_change_the_tokens_of_an_answer(
    name: str, encoders: dict[str, PromptEncoder]
) -> None:
    chat = encoders[name]
    for answer in ("It rains.", CALLING) if BASES[name].calls else ("It rains.",):
        assert chat.completion(answer, [SYSTEM, USER]) == chat.completion(answer, [USER])


@pytest.mark.parametrize("name", BASES)
def test_an_empty_list_of_tool_calls_is_no_call(name: str, encoders: dict[str, PromptEncoder]) -> None:
    empty = {"role": "assistant", "content": "It rains.", "tool_calls": []}
    plain = {"role": "assistant", "content": "It rains."}
    assert encoders[name].text([USER, empty, USER], {}) == encoders[name].text([USER, plain, USER], {})
    assert encoders[name].completion([empty], [USER]) == encoders[name].completion("It rains.", [USER])


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("position", ["end", "start", "system", "both"])
def test_a_message_of_a_developer_is_shown_and_keeps_the_reward_lines(
    name: str, position: str, encoders: dict[str, PromptEncoder]
) -> None:
    chat = replace(encoders[name], template=Template.model_validate({"place": position}))
    text = chat.text([{**SYSTEM, "role": "developer"}, USER], {"r": 0.5})
    assert "Answer in rhymes." in text
    assert "r: 0.50" in text


def test_ids_of_tool_calls_become_as_short_as_the_chat_template_wants(encoders: dict[str, PromptEncoder]) -> None:
    calls = [{**CALL, "id": "call_8f1e2a77"}, {**CALL, "id": "call_03c5d9b1"}]
    results = [{**RESULT, "tool_call_id": call["id"], "content": call["id"][-2:]} for call in reversed(calls)]
    text = encoders["Mistral"].text([USER, {**CALLING[0], "tool_calls": calls}, *results], {})
    assert '"id": "000000001"}, {"name": "get_weather", "arguments": {"town": "Oslo"}, "id": "000000002"}]</s>' in text
    assert '{"content": b1, "call_id": "000000002"}' in text
    assert '{"content": 77, "call_id": "000000001"}' in text


def test_a_prompt_whose_reward_lines_the_chat_template_drops_is_refused(encoders: dict[str, PromptEncoder]) -> None:
    chat = replace(encoders["Mistral"], template=Template.model_validate({"place": "system"}))
    assert chat.prompt([USER], {"r": 0.5}, 500).ids
    with pytest.raises(Refused, match="drops the reward lines"):
        chat.prompt([USER, *CALLING, RESULT], {"r": 0.5}, 500)


@pytest.mark.parametrize("name", ["Qwen3", "DeepSeek-R1-Distill"])
def test_thoughts_are_left_out_and_reported_if_the_policy_answers_at_once(
    name: str, encoders: dict[str, PromptEncoder]
) -> None:
    answer = encoders[name].completion([{"role": "assistant", "content": "Yes.", "reasoning": "because"}], [USER])
    assert encoders[name].tokenizer.decode(answer.ids) == f"Yes.{BASES[name].end}"
    assert answer.dropped == ("the reasoning of the answer",)


def test_arguments_are_text_where_the_template_adds_them_to_a_text() -> None:
    call = "{% for c in m.tool_calls or [] %}{{ c.function.name + ': ' + c.function.arguments }}{% endfor %}"
    chat = encoder(CHATML.replace("{{ m['content'] }}", "{{ m['content'] }}" + call))
    assert learnt(chat, CALLING) == 'get_weather: {"town": "Oslo"}<|im_end|>'


def test_thoughts_of_gpt_oss_are_left_out_and_reported(encoders: dict[str, PromptEncoder]) -> None:
    thoughtful = [{"role": "assistant", "content": "Yes.", "reasoning": "because"}]
    answer = encoders["gpt-oss"].completion(thoughtful, [USER])
    assert encoders["gpt-oss"].tokenizer.decode(answer.ids) == "Yes.<|return|>"
    assert answer.dropped == ("the reasoning of the answer",)


def test_reasoning_that_the_template_drops_is_refused_alone_and_reported_beside_an_answer() -> None:
    chat = encoder(CHATML)
    thoughtful = [{"role": "assistant", "content": "Yes.", "reasoning_content": "because"}]
    assert chat.completion(thoughtful, [USER]).dropped == ("the reasoning of the answer",)
    with pytest.raises(Refused, match="drops the reasoning"):
        chat.completion([{**thoughtful[0], "content": ""}], [USER])


@pytest.mark.parametrize("name", ["Qwen3", "DeepSeek-R1-Distill"])
@pytest.mark.parametrize("inline", [True, False])
def test_rows_with_thoughts_make_a_policy_that_thinks(name: str, inline: bool) -> None:
    base = BASES[name]
    chat = encoder(base.text, base.eos, base.bos, thoughts=True)
    plain = {"role": "assistant", "content": "Yes."}
    thoughtful: Content = [{**plain, "reasoning_content": "because"}]
    thoughtful = "<think>\nbecause\n</think>\n\nYes." if inline else thoughtful
    assert chat.turn_format.has_thoughts(thoughtful)
    assert not chat.turn_format.has_thoughts([plain])
    begins = chat.text([USER], {})
    assert begins.endswith(base.prefix)
    assert (begins + learnt(chat, thoughtful)).endswith(f"<think>\nbecause\n</think>\n\nYes.{base.end}")
    assert (begins + learnt(chat, [plain])).endswith(f"<think>\n\n</think>\n\nYes.{base.end}")


@pytest.mark.parametrize(
    ("prefix", "sampled", "text"),
    [
        ("<|im_start|>assistant\n", " Yes. ", "Yes."),
        ("<|im_start|>assistant\n", "<think>\n\n</think>\n\nYes.", "Yes."),
        ("<|im_start|>assistant\n", "<think>\nso\n</think>\n\nYes.", "<think>\nso\n</think>\n\nYes."),
        ("<|im_start|>assistant\n<think>\n", "so\n</think>\n\nYes.", "<think>\nso\n</think>\n\nYes."),
        ("<|im_start|>assistant\n<think>\n", "\n</think>\n\nYes.", "Yes."),
    ],
)
def test_a_sample_has_whole_thoughts_or_none(prefix: str, sampled: str, text: str) -> None:
    assert TurnFormat(prefix).answer(sampled) == text


@pytest.mark.parametrize("name", ["Qwen3", "DeepSeek-R1-Distill", "gpt-oss"])
@pytest.mark.parametrize("newline", ["", "\n"])
def test_a_served_prompt_ends_where_the_answer_begins(
    name: str, newline: str, encoders: dict[str, PromptEncoder]
) -> None:
    chat, base = encoders[name], BASES[name].text + newline
    served = with_opening(base, chat.turn_format)
    shown = chat.tokenizer.apply_chat_template([USER], chat_template=served, tokenize=False, add_generation_prompt=True)
    assert shown == chat.text([USER], {})
    assert without_rewards(served) == base


def test_without_a_token_at_the_end_of_a_turn_the_eos_token_ends_it() -> None:
    chat = encoder("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ", "<|endoftext|>")
    assert learnt(chat, "Yes.").endswith("Yes.<|endoftext|>")
    assert turn_format(tokenizer_of(PLAIN_CHAT)).ends == ()


def test_several_named_chat_templates_without_a_default_use_the_one_for_chats(tmp_path: Path) -> None:
    from irlhf.models.loading import load_speaker

    tokenizer = tokenizer_of(CHATML, "<|im_end|>")
    tokenizer.chat_template = {"tool_use": CHATML + "{{ tools }}", "chat": CHATML}
    tokenizer.save_pretrained(tmp_path)
    assert load_speaker(str(tmp_path)).get_chat_template() == CHATML


@pytest.mark.parametrize("name", BASES)
def test_the_table_of_bases_has_what_the_probe_finds(name: str) -> None:
    page = (ROOT / "docs" / "chat-templates.md").read_text(encoding="utf-8")
    cells = next(line for line in page.splitlines() if line.startswith(f"| {name} |")).replace("\\|", "\0").split("|")
    end, prefix, opening = (cell.strip().strip("`").replace("\0", "|") for cell in cells[3:6])
    base = BASES[name]
    found = (base.end, base.prefix or "(none)", base.opening)
    assert (end, prefix, opening) == tuple(text.replace("\n", "\\n") for text in found)
