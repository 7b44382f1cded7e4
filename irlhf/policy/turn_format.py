"""Where an answer begins and ends in a conversation that a chat template renders."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import StrictBool, StrictInt, StrictStr

from irlhf.core.example import Content, Message, as_messages

REASONING = ("reasoning_content", "reasoning", "thinking")  # keys of a message with thoughts, of which it has one
OPENED = re.compile(r"<(\w+)>\s*$")  # an opened think block at the end of a prompt
_CLOSED = re.compile(r"</\w+>")


def reasoning_of(message: Message) -> str:
    """Return the thoughts of a message that are apart from its text."""
    return next((text for key in REASONING if isinstance(text := message.get(key), str)), "")


@dataclass(frozen=True)
class TurnFormat:
    """The texts around an answer, see irlhf/models/turn_probe.py. Example: Qwen3.

    prefix     "<|im_start|>assistant\\n"      what the chat template writes behind a prompt
    opened     ""                             end of `prefix` that it does not write before a given answer
    opening    "<think>\\n\\n</think>\\n\\n"      what stands between `prefix` and an answer without thoughts
    end        "<|im_end|>"                   what ends a turn; empty if the template writes no token there
    tail       "<|im_end|>\\n"                 all that the template writes behind the last answer
    ends       [151645]                       ids of the tokens that end a turn
    """

    prefix: StrictStr = ""
    opened: StrictStr = ""
    opening: StrictStr = ""
    end: StrictStr = ""
    tail: StrictStr = ""
    ends: tuple[StrictInt, ...] = field(default=())
    thoughts: StrictBool = False  # the training rows have thoughts, so prompts end with `prefix`

    @property
    def before_answer(self) -> str:
        """What is added to a rendered prompt."""
        return "" if self.thoughts else self.opening

    @property
    def closing(self) -> str:
        """The end of the think block in `opening`; empty without a think block."""
        closing = _CLOSED.search(self.opening)
        return closing[0] if closing else ""

    def has_thoughts(self, completion: Content) -> bool:
        """Return whether a completion has thoughts and the chat template has a place for them."""
        closing = self.closing
        return bool(closing) and any(
            bool(reasoning_of(message)) or closing in (message.get("content") or "")
            for message in as_messages(completion, "assistant")
        )

    def answer(self, text: str) -> str:
        """Return a sampled text with a think block that the prompt opened, and without an empty think block."""
        opened = OPENED.search(self.prefix + self.before_answer)
        whole = opened[0] + text if opened else text
        return re.sub(r"\A\s*<(\w+)>\s*</\1>", "", whole).strip()

    def describe(self) -> str:
        """Return the format in one line, for people."""
        parts = [f"prompts end with {self.prefix + self.before_answer!r}" if self.prefix + self.before_answer else ""]
        ids = ", ".join(map(str, self.ends))
        parts.append(f"a turn ends with {self.end!r} (token {ids})" if self.end else f"a turn ends with token {ids}")
        parts.append("thoughts are trained on" if self.thoughts else "")
        return "; ".join(filter(None, parts))

    def to_json(self) -> dict[str, Any]:
        """Return the format as stored in policy.json."""
        return {**asdict(self), "ends": list(self.ends)}
