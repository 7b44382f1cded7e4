"""Render conversations with a tokenizer's chat template, and measure where an answer begins and ends.

The probe is a conversation of a question and an answer, rendered up to the answer and as a whole:

    <|im_start|>user\\nQ<|im_end|>\\n<|im_start|>assistant\\n                                    the prompt
    <|im_start|>user\\nQ<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\nA<|im_end|>\\n
                                                         opening               end
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jinja2

from irlhf.core.errors import DataError
from irlhf.core.example import Message
from irlhf.core.tool_calls import with_arguments, with_short_ids
from irlhf.policy.turn_format import OPENED, TurnFormat

_QUESTION, _ANSWER = "Which probe is this?", "The first of them."


class Refused(DataError):
    """The chat template rejects a conversation, or drops a part of it that would be trained on."""


def render(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] = (), *, generation: bool) -> str:
    """Return the text of a conversation, with `generation` up to the beginning of the next answer. Raises Refused.

    Templates disagree about tool calls: most write arguments that are an object as JSON, some add a text to another,
    and Mistral's accept ids of nine characters only.
    """
    problem: Exception | None = None
    for variant in _variants(messages):
        try:
            text: str = tokenizer.apply_chat_template(
                variant, tools=list(tools) or None, tokenize=False, add_generation_prompt=generation
            )
            return text
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            problem = problem or error
    raise Refused(f"the chat template rejects this conversation ({problem})") from problem


def turn_format(tokenizer: Any) -> TurnFormat:
    """Return where an answer begins and ends in the tokenizer's chat template.

    Without a token at the end of a turn in the template, the end is the tokenizer's eos token. `ends` is empty if
    there is none either.
    """
    eos = tuple(token for token in [tokenizer.eos_token_id] if token is not None)
    question, answer = {"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}
    try:
        before = render(tokenizer, [question], generation=False)
        prompt = render(tokenizer, [question], generation=True)
        whole = render(tokenizer, [question, answer], generation=False)
    except Refused:
        return TurnFormat(ends=eos)
    prefix = prompt.removeprefix(before) if prompt.startswith(before) else ""
    start, separator, tail = whole.rpartition(_ANSWER)
    if not separator:
        return TurnFormat(prefix=prefix, ends=eos)
    opened, opening = _around(prompt, start)
    end, token = _end_of(tokenizer, tail)
    return TurnFormat(prefix, opened, opening, end, tail, eos if token is None else (token,))


def _around(prompt: str, start: str) -> tuple[str, str]:
    """Return what the prompt opens in addition to `start`, the text before a given answer, and what is missing in it.

    White space before an answer belongs to the answer, because tokens often begin with a space.
    """
    if start.startswith(prompt):
        missing = start.removeprefix(prompt)
        return "", missing if missing.strip() else ""
    block = OPENED.search(prompt)
    if block and prompt.startswith(start) and len(start) <= block.start():
        return prompt.removeprefix(start), f"\n</{block[1]}>\n\n"
    return "", ""


def _end_of(tokenizer: Any, tail: str) -> tuple[str, int | None]:
    """Return the text behind an answer up to its first special token, and that token's id."""
    special = set(tokenizer.all_special_ids)
    special |= {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    for number in tokenizer(tail, add_special_tokens=False)["input_ids"]:
        if number in special:
            token = tokenizer.convert_ids_to_tokens(number)
            return tail[: tail.index(token) + len(token)], number
    return "", None


def _variants(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Yield the messages with the arguments of tool calls as objects and, if there are tool calls, other forms of them.

    Null as the content becomes an empty text: most templates add it to another text.
    """
    texts = [{**message, "content": ""} if message.get("content") is None else message for message in messages]
    yield [with_arguments(message, parsed=True) for message in texts]
    if any(message.get("tool_calls") for message in messages):
        yield [with_arguments(message, parsed=False) for message in texts]
        for parsed in (True, False):
            yield with_short_ids([with_arguments(message, parsed=parsed) for message in texts])
