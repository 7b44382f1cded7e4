"""From a prompt and the rewards asked for to token ids: the one way, shared by training and sampling."""

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

# For bases that were never taught a chat: turns with a name, parted by blank lines.
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
    """Not even an empty prompt fits beside the completion."""


class Refused(DataError):
    """The base's own chat template cannot hold this conversation, such as two answers in a row."""


class Tokens(NamedTuple):
    """A prompt as token ids, and whether the beginning of the conversation had to go."""

    ids: list[int]
    cut: bool
    turns: list[Message]  # what is left of the conversation, without rewards


@dataclass(frozen=True)
class PromptEncoder:
    """A tokenizer with the template that its policy was trained with."""

    tokenizer: Any
    template: Template
    names: Sequence[str]  # all rewards that the policy knows
    trusting: bool = False  # whether text of users that looks like a reward, or a special token, is let through

    def messages(self, prompt: Content, requested: Mapping[str, RequestedValue]) -> list[Message]:
        """Return the prompt as the model sees it, rewards written in and user text disarmed."""
        if self.trusting:
            return self.template.render(prompt, requested, ())
        disarmed = [self._disarmed(message) for message in as_messages(prompt)]
        return self.template.render(disarmed, requested, self.names)

    def text(self, prompt: Content, requested: Mapping[str, RequestedValue]) -> str:
        """Return the prompt's whole text, up to where the completion begins."""
        return self._chat_text(self.messages(prompt, requested), generation=True)

    def prompt(self, prompt: Content, requested: Mapping[str, RequestedValue], room: int) -> Tokens:
        """Return the prompt as at most `room` token ids.

        What does not fit loses the beginning of the conversation: whole turns first, then the first
        words of the last user turn; never a system message or a reward line. Raises NoRoom where even
        an empty turn does not fit.
        """
        turns = list(as_messages(prompt))
        ids = self._ids(self.text(turns, requested))
        if len(ids) <= room:
            return Tokens(ids, False, turns)
        start = 1 if turns[0]["role"] in ("system", "developer") else 0
        while any(turn["role"] == "user" for turn in turns[start + 1 :]):
            del turns[start]
            if turns[start]["role"] == "assistant":
                continue  # an answer whose question is gone goes too
            ids = self._ids(self.text(turns, requested))
            if len(ids) <= room:
                return Tokens(ids, True, turns)
        return self._shortened(turns, requested, room, start)

    def completion(self, completion: Content, prompt: Content) -> list[int]:
        """Return the completion's token ids, the end of the turn included."""
        answer = [self._disarmed(message) for message in as_messages(completion, "assistant")]
        if self.tokenizer.chat_template != PLAIN_CHAT:
            question = [self._disarmed(message) for message in as_messages(prompt)]
            before = self._chat_text(question, generation=True)
            whole = self._chat_text(question + answer, generation=False)
            if whole.startswith(before):
                return self._ids(whole.removeprefix(before))
        if len(answer) > 1 or not isinstance(answer[0].get("content"), str):
            raise DataError("a completion of several messages needs a base whose chat template can hold it")
        return [*self._ids(" " + answer[0]["content"]), self.tokenizer.eos_token_id]

    def _shortened(self, turns: list[Message], requested: Mapping[str, RequestedValue], room: int, at: int) -> Tokens:
        """Drop the fewest first words of the turn at `at` that make it fit."""
        text = turns[at]["content"]
        starts = [word.start() for word in _WORD.finditer(text)] + [len(text)]

        def begun(word: int) -> Tokens:
            left = [*turns[:at], {**turns[at], "content": text[starts[word] :]}, *turns[at + 1 :]]
            return Tokens(self._ids(self.text(left, requested)), True, left)

        low, high = 0, len(starts) - 1
        if len(begun(high).ids) > room:
            raise PromptTooLong(f"the prompt's frame alone takes more than the {room} tokens that are left for it")
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if len(begun(middle).ids) <= room else (middle + 1, high)
        return begun(high)

    def _chat_text(self, messages: list[Message], generation: bool) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
        except jinja2.TemplateError as error:
            raise Refused(f"the base's chat template refuses this conversation ({error})") from error
        return text

    def _ids(self, text: str) -> list[int]:
        # Chat templates write every special token themselves.
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @cached_property
    def _specials(self) -> Specials:
        return specials_of(self.tokenizer, self.template, self.names)

    def _disarmed(self, message: Message) -> Message:
        """Part every special token, so that it is read as text."""
        body = message.get("content")
        return {**message, "content": self._specials.part(body)} if isinstance(body, str) else message
