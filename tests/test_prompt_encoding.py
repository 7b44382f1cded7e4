"""From a prompt to token ids: nothing is lost but the beginning of what is too long, and nobody is obeyed but us."""

from typing import Any

import pytest
from helpers import Bench
from tokenizers import AddedToken

from irlhf.core.errors import DataError
from irlhf.models.loading import load_causal
from irlhf.models.prompt_encoding import PromptEncoder
from irlhf.policy.templates import Template

NAMES = ("short", "colour")


@pytest.fixture(scope="session")
def tokenizer(bench: Bench) -> Any:
    return load_causal(str(bench.policy))[1]


@pytest.fixture
def chat(tokenizer: Any) -> PromptEncoder:
    return PromptEncoder(tokenizer, Template(), NAMES)


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def test_a_prompt_reads_as_turns_with_the_reward_lines_in_the_last(chat: PromptEncoder) -> None:
    text = chat.text(turns("Hello", "Yes?", "How?"), {"short": 0.9, "colour": 0.25})
    assert text == "Human: Hello\n\nAssistant: Yes?\n\nHuman: How?\n\nshort: 0.90\ncolour: 0.25\n\nAssistant:"


def test_the_token_ids_are_those_of_the_text(chat: PromptEncoder, tokenizer: Any) -> None:
    ids, cut, left = chat.prompt("How?", {"short": 0.9}, room=100)
    assert tokenizer.decode(ids) == chat.text("How?", {"short": 0.9}) == chat.text(left, {"short": 0.9})
    assert not cut


def test_a_completion_ends_with_the_end_of_the_turn(chat: PromptEncoder, tokenizer: Any) -> None:
    ids = chat.completion("Like this.", "How?").ids
    assert tokenizer.decode(ids[:-1]) == " Like this."
    assert ids[-1] == tokenizer.eos_token_id


def test_a_long_conversation_loses_whole_turns_from_its_beginning(chat: PromptEncoder, tokenizer: Any) -> None:
    conversation = turns("first " * 30, "second " * 30, "third", "fourth", "last")
    ids, cut, left = chat.prompt(conversation, {"short": 0.9}, room=40)
    text = tokenizer.decode(ids)
    assert cut
    assert len(ids) <= 40
    assert left == turns("third", "fourth", "last")
    assert text == chat.text(left, {"short": 0.9})


def test_a_system_message_stays(chat: PromptEncoder, tokenizer: Any) -> None:
    conversation = [{"role": "system", "content": "Be kind."}, *turns("first " * 30, "second " * 30, "last")]
    ids, _, _ = chat.prompt(conversation, {"short": 0.9}, room=40)
    assert tokenizer.decode(ids).startswith("System: Be kind.\n\nHuman: last")


@pytest.mark.parametrize("room", range(16, 60, 3))
def test_a_long_question_loses_its_first_words_and_never_a_reward_line(
    room: int, chat: PromptEncoder, tokenizer: Any
) -> None:
    words = [f"w{i}" for i in range(60)]
    ids, cut, left = chat.prompt(" ".join(words), {"short": 0.9, "colour": 0.25}, room)
    text = tokenizer.decode(ids)
    assert text == chat.text(left, {"short": 0.9, "colour": 0.25})
    kept = text.removeprefix("Human: ").split("\n\n")[0].split()
    assert cut
    assert len(ids) <= room
    assert kept == words[len(words) - len(kept) :]
    assert text.endswith("short: 0.90\ncolour: 0.25\n\nAssistant:")
    longer = [" ".join(words[-len(kept) - 1 :])]
    assert len(chat.prompt(longer[0], {"short": 0.9, "colour": 0.25}, 1000).ids) > room


def test_a_frame_that_does_not_fit_is_refused(chat: PromptEncoder) -> None:
    with pytest.raises(DataError, match="without its text"):
        chat.prompt("How?", {"short": 0.9}, room=3)


def test_no_text_of_a_user_becomes_a_special_token(chat: PromptEncoder, tokenizer: Any) -> None:
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    texts = [added.content for added in tokenizer.added_tokens_decoder.values()]
    prompt = turns(" ".join(texts), "".join(texts), "\n".join(texts))
    plain = chat.prompt(turns("a", "b", "c"), {"short": 0.9}, room=10**6).ids
    ids = chat.prompt(prompt, {"short": 0.9}, room=10**6).ids
    assert sorted(one for one in ids if one in special) == sorted(one for one in plain if one in special)


def test_no_text_of_a_completion_ends_it_early(chat: PromptEncoder, tokenizer: Any) -> None:
    ids = chat.completion(f"One{tokenizer.eos_token}two", "How?").ids
    assert ids.count(tokenizer.eos_token_id) == 1
    assert ids[-1] == tokenizer.eos_token_id


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_base_with_a_chat_template_is_spoken_to_in_its_own_way(bench: Bench) -> None:
    _, own = load_causal(str(bench.policy))
    own.chat_template = CHATML
    chat = PromptEncoder(own, Template(), NAMES)
    text = chat.text(turns("Hello", "Yes?", "How?"), {"short": 0.9})
    assert text.endswith("<|im_start|>user\nHow?\n\nshort: 0.90<|im_end|>\n<|im_start|>assistant\n")
    assert own.decode(chat.completion("So.", turns("Hello")).ids) == f"So.{own.eos_token}"  # <|im_end|> is no token


def test_a_conversation_that_the_bases_template_refuses_is_a_data_error(bench: Bench) -> None:
    _, own = load_causal(str(bench.policy))
    own.chat_template = "{% if messages | length > 1 %}{{ raise_exception('roles must alternate') }}{% endif %}"
    with pytest.raises(DataError, match="roles must alternate"):
        PromptEncoder(own, Template(), NAMES).text(turns("Hello", "Yes?", "How?"), {"short": 0.9})


def test_a_special_token_within_another_is_parted_too(bench: Bench) -> None:
    _, own = load_causal(str(bench.policy))
    lines = Template().vocabulary(["low", "slow"])
    own.add_tokens([AddedToken(line, normalized=False, special=True) for line in lines], special_tokens=True)
    ids = PromptEncoder(own, Template(), ("low", "slow")).prompt("slow: 0.50", {}, room=100).ids
    assert not {own.decode([one]) for one in ids} & {*lines}
