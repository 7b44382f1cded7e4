"""Encode prompts with target rewards as token ids, for training and for sampling."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jinja2

from irlhf.core.errors import DataError
from irlhf.core.example import Content, Message, as_messages
from irlhf.models.special_tokens import Specials, specials_of
from irlhf.policy.templates import RequestedValue, Template

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


class Refused(DataError):
    """The chat template rejects a conversation, such as one with two consecutive answers."""


class Tokens(NamedTuple):
    """An encoded prompt."""

    ids: list[int]
    cut: bool  # the beginning of the conversation was removed
    turns: list[Message]  # remaining conversation, without rewards


@dataclass(frozen=True)
class PromptEncoder:
    """Encodes prompts with a tokenizer and the reward template of a policy."""

    tokenizer: Any
    template: Template
    names: Sequence[str]  # all rewards of the policy
    trusting: bool = False  # do not escape reward lines and special tokens in user text

    def messages(self, prompt: Content, requested: Mapping[str, RequestedValue]) -> list[Message]:
        """Return the messages with reward lines added and user text escaped."""
        if self.trusting:
            return self.template.render(prompt, requested, ())
        escaped = [self._escaped(message) for message in as_messages(prompt)]
        return self.template.render(escaped, requested, self.names)

    def text(self, prompt: Content, requested: Mapping[str, RequestedValue]) -> str:
        """Return the text of the prompt, up to the beginning of the completion."""
        return self._chat_text(self.messages(prompt, requested), generation=True)

    def prompt(self, prompt: Content, requested: Mapping[str, RequestedValue], room: int) -> Tokens:
        """Return the prompt as at most `room` token ids.

        A long conversation is shortened at the beginning: first whole turns, then the first words of the last user
        turn. System messages and reward lines are kept. Raises PromptTooLong if an empty turn does not fit.
        """
        turns = list(as_messages(prompt))
        ids = self._ids(self.text(turns, requested))
        if len(ids) <= room:
            return Tokens(ids, False, turns)
        start = 1 if turns[0]["role"] in ("system", "developer") else 0
        while any(turn["role"] == "user" for turn in turns[start + 1 :]):
            del turns[start]
            if turns[start]["role"] == "assistant":
                continue  # remove an answer together with its question
            ids = self._ids(self.text(turns, requested))
            if len(ids) <= room:
                return Tokens(ids, True, turns)
        return self._shortened(turns, requested, room, start)

    def completion(self, completion: Content, prompt: Content) -> list[int]:
        """Return the token ids of the completion, including the end of the turn. Raises DataError."""
        answer = [self._escaped(message) for message in as_messages(completion, "assistant")]
        if self.tokenizer.chat_template != PLAIN_CHAT:
            question = [self._escaped(message) for message in as_messages(prompt)]
            before = self._chat_text(question, generation=True)
            whole = self._chat_text(question + answer, generation=False)
            if whole.startswith(before):
                return self._ids(whole.removeprefix(before))
        if len(answer) > 1 or not isinstance(answer[0].get("content"), str):
            raise DataError("a completion of several messages needs a base model with a chat template that accepts it")
        return [*self._ids(" " + answer[0]["content"]), self.tokenizer.eos_token_id]

    def _shortened(self, turns: list[Message], requested: Mapping[str, RequestedValue], room: int, at: int) -> Tokens:
        """Remove as few first words as possible from turn `at` so that the prompt fits."""
        text = turns[at]["content"]
        starts = [word.start() for word in _WORD.finditer(text)] + [len(text)]

        def from_word(word: int) -> Tokens:
            left = [*turns[:at], {**turns[at], "content": text[starts[word] :]}, *turns[at + 1 :]]
            return Tokens(self._ids(self.text(left, requested)), True, left)

        low, high = 0, len(starts) - 1
        if len(from_word(high).ids) > room:
            raise PromptTooLong(f"the prompt without its text needs more than the {room} available tokens")
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if len(from_word(middle).ids) <= room else (middle + 1, high)
        return from_word(high)

    def _chat_text(self, messages: list[Message], generation: bool) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
        except jinja2.TemplateError as error:
            raise Refused(f"the base's chat template rejects this conversation ({error})") from error
        return text

    def _ids(self, text: str) -> list[int]:
        # Chat templates write all special tokens.
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @cached_property
    def _specials(self) -> Specials:
        return specials_of(self.tokenizer, self.template, self.names)

    def _escaped(self, message: Message) -> Message:
        """Split special tokens in the text, so that they are read as text."""
        body = message.get("content")
        return {**message, "content": self._specials.part(body)} if isinstance(body, str) else message
