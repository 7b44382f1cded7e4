"""Encode prompts with target rewards as token ids, for training and for sampling."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from irlhf.core.errors import DataError
from irlhf.core.example import Content, Message, as_messages
from irlhf.core.tool_calls import calls_of, name_of
from irlhf.models.chat_template import knows_developers
from irlhf.models.special_tokens import Specials, specials_of
from irlhf.models.turn_probe import Refused, render, turn_format
from irlhf.policy.templates import RequestedValue, Template
from irlhf.policy.turn_format import REASONING, TurnFormat, reasoning_of

# For bases without a chat template: turns with a speaker, separated by blank lines.
SPEAKERS = {"user": "Human", "assistant": "Assistant"}
PLAIN_CHAT = (
    "{{ bos_token or '' }}"
    "{% for message in messages %}"
    f"{{{{ {SPEAKERS}.get(message['role'], message['role'] | capitalize) }}}}"
    ": {{ message['content'] }}\n\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)

_WORD = re.compile(r"\S+")


class PromptTooLong(DataError):
    """The prompt does not fit even if its text is removed."""


class Tokens(NamedTuple):
    """An encoded prompt."""

    ids: list[int]
    cut: bool  # the beginning of the conversation was removed
    turns: list[Message]  # remaining conversation, without rewards


class EncodedAnswer(NamedTuple):
    """An encoded completion, and the parts of it that the chat template does not show."""

    ids: list[int]
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class PromptEncoder:
    """Encodes prompts with a tokenizer and the reward template of a policy."""

    tokenizer: Any
    template: Template
    names: Sequence[str]  # all rewards of the policy
    trusting: bool = False  # do not escape reward lines and special tokens in user text
    turns: TurnFormat | None = None  # of the policy; None measures that of the tokenizer

    @cached_property
    def turn_format(self) -> TurnFormat:
        """Where an answer begins and ends."""
        return self.turns or turn_format(self.tokenizer)

    def messages(self, prompt: Content, requested: Mapping[str, RequestedValue]) -> list[Message]:
        """Return the messages with reward lines added and user text escaped."""
        if self.trusting:
            return self.template.render([self._known(turn) for turn in as_messages(prompt)], requested, ())
        return self.template.render(self._turns(prompt), requested, self.names)

    def text(self, prompt: Content, requested: Mapping[str, RequestedValue], tools: Sequence[Any] = ()) -> str:
        """Return the text of the prompt, up to the beginning of the completion. Raises Refused."""
        text = render(self.tokenizer, self.messages(prompt, requested), tools, generation=True)
        return text + self.turn_format.before_answer if text.endswith(self.turn_format.prefix) else text

    def prompt(
        self, prompt: Content, requested: Mapping[str, RequestedValue], room: int, tools: Sequence[Any] = ()
    ) -> Tokens:
        """Return the prompt as at most `room` token ids.

        A long conversation is shortened at the beginning: first whole turns, then the first words of the last user
        turn. System messages, tools and reward lines are kept. Raises PromptTooLong if an empty turn does not fit, and
        Refused if the chat template rejects the conversation or drops the reward lines.
        """
        turns = list(as_messages(prompt))
        text = self.text(turns, requested, tools)
        if not _shows(text, self.template.reward_block(requested)):
            raise Refused("the chat template drops the reward lines of this conversation; use --template reward-end")
        ids = self._ids(text)
        if len(ids) <= room:
            return Tokens(ids, False, turns)
        start = 1 if turns[0]["role"] in ("system", "developer") else 0
        while any(turn["role"] == "user" for turn in turns[start + 1 :]):
            del turns[start]
            if turns[start]["role"] in ("assistant", "tool"):
                continue  # remove an answer together with its question
            ids = self._ids(self.text(turns, requested, tools))
            if len(ids) <= room:
                return Tokens(ids, True, turns)
        return self._shortened(turns, requested, room, start, tools)

    def completion(
        self, completion: Content, prompt: Content, tools: Sequence[Any] = (), *, ended: bool = True
    ) -> EncodedAnswer:
        """Return the token ids of the completion, with the end of the turn if it `ended`.

        Raises Refused if the chat template rejects the conversation or drops the answer.
        """
        turns = self.turn_format
        answer = self._turns(as_messages(completion, "assistant"))
        text = self._answer_text(self._turns(prompt), answer, tools)
        dropped = tuple(_dropped_answer(answer, text))
        if text.endswith(turns.tail):
            text = text.removesuffix(turns.tail)
            ids = self._ids(text + turns.end if ended else text)
        else:
            ids = self._ids(text)
            while ids and not ended and ids[-1] in self._special_ids:
                ids.pop()
        if ended and not turns.end:
            if len(answer) > 1:
                raise Refused("several messages as a completion need a chat template that ends a turn with a token")
            ids.extend(turns.ends[:1])
        return EncodedAnswer(ids, dropped)

    def dropped(self, prompt: Content, tools: Sequence[Any] = ()) -> list[str]:
        """Return the parts of a prompt that the chat template does not show. Raises Refused."""
        turns = self._turns(prompt)
        plain = all(turn["role"] in ("user", "assistant") and not turn.get("tool_calls") for turn in turns)
        if plain and not tools:
            return []
        text = render(self.tokenizer, turns, tools, generation=True)
        shown = [f"the {turn['role']} message" for turn in turns if not _shows(text, turn.get("content"))]
        calls = [call for turn in turns for call in calls_of(turn)]
        return [
            *(["the tools"] if any(not _shows(text, name_of(tool)) for tool in tools) else []),
            *dict.fromkeys(what for what in shown if what not in ("the user message", "the assistant message")),
            *(["an earlier tool call"] if any(not _shows(text, name_of(call)) for call in calls) else []),
        ]

    def _answer_text(self, question: list[Message], answer: list[Message], tools: Sequence[Any]) -> str:
        """Return what the chat template writes behind a prompt for an answer, with the end of its turn.

        Some templates write another prompt with an answer than without: Mistral's have the system message in the last
        user turn only while no answer follows, and Qwen3.5's replaces an empty think block before the answer.
        """
        no_system = [turn for turn in question if turn["role"] != "system"] or question
        no_thoughts = [_without(turn, REASONING) for turn in answer]
        for shown, given in ((question, answer), (no_system, answer), (question, no_thoughts)):
            text = self._behind(shown, given, tools)
            if text is not None:
                return text
        if len(answer) > 1 or not isinstance(answer[0].get("content"), str):
            raise Refused("the chat template changes the question when it writes this answer")
        return f"{answer[0]['content']}{self.turn_format.tail}"

    def _behind(self, question: list[Message], answer: list[Message], tools: Sequence[Any]) -> str | None:
        """Return the text of an answer behind its question, or None if the template changes the question."""
        turns = self.turn_format
        before = render(self.tokenizer, question, tools, generation=True)
        whole = render(self.tokenizer, question + answer, tools, generation=False)
        if whole.startswith(before):
            text, opening = whole.removeprefix(before), turns.before_answer
            before_text = opening[opening.find(turns.closing) :]
            if opening and len(answer) == 1 and before_text in text:
                return text.partition(before_text)[2]  # thoughts have no place where the policy answers at once
            if opening and not turns.closing and not text.startswith(opening):
                raise Refused(f"the chat template does not begin this answer with {opening!r}, as all prompts end")
            return text.removeprefix(opening)
        start = before.removesuffix(turns.opened)
        if not whole.startswith(start):
            return None
        text = whole.removeprefix(start)  # the template shows no think block before a given answer
        return _thoughts(answer[0]) + turns.opening + text.lstrip("\n") if turns.thoughts else text

    def _shortened(
        self, turns: list[Message], requested: Mapping[str, RequestedValue], room: int, at: int, tools: Sequence[Any]
    ) -> Tokens:
        """Remove as few first words as possible from turn `at` so that the prompt fits."""
        text = turns[at]["content"]
        starts = [word.start() for word in _WORD.finditer(text)] + [len(text)]

        def from_word(word: int) -> Tokens:
            left = [*turns[:at], {**turns[at], "content": text[starts[word] :]}, *turns[at + 1 :]]
            return Tokens(self._ids(self.text(left, requested, tools)), True, left)

        low, high = 0, len(starts) - 1
        if len(from_word(high).ids) > room:
            tools_too = ", but with its tools," if tools else ""
            raise PromptTooLong(f"the prompt without its text{tools_too} needs more than the {room} available tokens")
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if len(from_word(middle).ids) <= room else (middle + 1, high)
        return from_word(high)

    def _ids(self, text: str) -> list[int]:
        # Chat templates write all special tokens.
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @cached_property
    def _specials(self) -> Specials:
        return specials_of(self.tokenizer, self.template, self.names)

    @cached_property
    def _special_ids(self) -> set[int]:
        return {*self.tokenizer.all_special_ids, *self.turn_format.ends}

    @cached_property
    def _has_developer(self) -> bool:
        return knows_developers(self.tokenizer.get_chat_template())

    def _known(self, message: Message) -> Message:
        """Return a message with the role `system` for `developer`, unless the chat template knows developers."""
        return message if message["role"] != "developer" or self._has_developer else {**message, "role": "system"}

    def _turns(self, conversation: Content) -> list[Message]:
        """Return the messages of a conversation for the chat template, with escaped text."""
        return [self._known(self._escaped(message)) for message in as_messages(conversation)]

    def _escaped(self, message: Message) -> Message:
        """Split special tokens in the text, so that they are read as text."""
        texts = {key: message[key] for key in ("content", *REASONING) if isinstance(message.get(key), str)}
        return {**message, **{key: self._specials.part(text) for key, text in texts.items()}}


def _dropped_answer(answer: Sequence[Message], text: str) -> Iterator[str]:
    """Yield the parts of an answer that are missing in its text. Raises Refused if a part without substitute is."""
    for message in answer:
        if any(not _shows(text, name_of(call)) for call in calls_of(message)):
            raise Refused("the chat template drops the tool call of the answer")
        body = (message.get("content") or "").rpartition("</think>")[2]
        if not _shows(text, body):
            raise Refused("the chat template drops the answer")
        if not _shows(text, reasoning_of(message)):
            if not body.strip() and not message.get("tool_calls"):
                raise Refused("the chat template drops the reasoning of the answer, which has no other text")
            yield "the reasoning of the answer"


def _shows(text: str, part: Any) -> bool:
    """Return whether a part of a conversation is in its text, as it is or as JSON."""
    if not isinstance(part, str) or not part.strip():
        return True
    stripped = part.strip()
    return stripped in text or any(json.dumps(stripped, ensure_ascii=ascii)[1:-1] in text for ascii in (False, True))


def _without(message: Message, keys: Sequence[str]) -> Message:
    return {key: value for key, value in message.items() if key not in keys}


def _thoughts(message: Message) -> str:
    """Return the thoughts of an answer: its reasoning, or its text in a think block."""
    inline = (message.get("content") or "").rpartition("</think>")[0].rpartition("<think>")[2]
    return (reasoning_of(message) or inline).strip()
