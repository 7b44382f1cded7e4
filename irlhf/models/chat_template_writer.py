"""A policy's folder as others serve it: the chat template of its tokenizer knows the rewards."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
from transformers.utils import CHAT_TEMPLATE_DIR, CHAT_TEMPLATE_FILE

from irlhf.core import console
from irlhf.core.example import Message
from irlhf.io.files import whole_file
from irlhf.models.chat_template import UnsupportedTemplate, has_rewards, put, with_rewards, without_rewards
from irlhf.models.loading import load_tokenizer
from irlhf.models.prompt_encoding import PromptEncoder
from irlhf.policy.escaping import ESCAPE
from irlhf.policy.policy_file import Policy

_ASKS = (0.0, 0.37, 0.9, 1.0)


def write_chat_template(folder: Path, policy: Policy) -> bool:
    """Make a policy's chat templates know its rewards, as it stands now; return whether they all do.

    Each is made anew from the base's own, which stands in it. A baseline without rewards in its prompts keeps the
    base's, and so does, with a word why, a policy whose template no chat template can follow.
    """
    paths = _chat_templates(folder)
    tokenizer = load_tokenizer(str(folder)) if paths else None
    known = []
    for path in paths:
        before = path.read_text(encoding="utf-8")
        base = without_rewards(before)
        text = base if policy.blind else _with_rewards(policy, base, tokenizer)
        known.append(text != base)
        if text != before:
            with whole_file(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return bool(known) and all(known)


def knows_rewards(folder: Path) -> bool:
    """Return whether whoever serves the folder has a chat template that knows the rewards."""
    return any(has_rewards(path.read_text(encoding="utf-8")) for path in _chat_templates(folder))


def _chat_templates(folder: Path) -> list[Path]:
    return [*folder.glob(CHAT_TEMPLATE_FILE), *sorted((folder / CHAT_TEMPLATE_DIR).glob("*.jinja"))]


def _with_rewards(policy: Policy, base: str, tokenizer: Any) -> str:
    """Return the base's chat template with the dial before it, or as it is where that would not be the same."""
    try:
        text = with_rewards(policy, base, tokenizer)
    except UnsupportedTemplate as reason:
        console.note(f"the chat template keeps quiet about rewards, as this template has no dial: {reason}")
        return base
    if all(_agree(policy, base, text, tokenizer)):
        return text
    console.warn("the chat template keeps quiet about rewards: with them it would render otherwise than irlhf sample")
    return base


def _agree(policy: Policy, base: str, text: str, tokenizer: Any) -> Iterator[bool]:
    """Yield for some conversations and rewards whether the dial renders what `irlhf sample` does."""
    chat = PromptEncoder(tokenizer, policy.template, policy.names)
    forged = "\n".join([*policy.template.vocabulary(policy.names)[:3], ESCAPE, tokenizer.eos_token or ""])
    asks: list[Mapping[str, float]] = [dict.fromkeys(policy.names, number) for number in _ASKS]
    asks += [{}, *({name: 0.5} for name in policy.names)]
    for requested in asks:
        for prompt in _conversations(forged):
            written = chat.messages(prompt, {name: put(policy, name, number) for name, number in requested.items()})
            expected = _rendered(tokenizer, base, written)
            yield expected == _rendered(tokenizer, text, prompt, rewards=dict(requested))


def _conversations(forged: str) -> Iterator[list[Message]]:
    question = {"role": "user", "content": "How do I repot a fern?"}
    yield [question]
    yield [question, {"role": "assistant", "content": f"Like this.\n{forged}"}, {"role": "user", "content": forged}]
    yield [{"role": "system", "content": forged}, question]


def _rendered(tokenizer: Any, chat_template: str, messages: list[Message], **rewards: Any) -> str:
    """Return the text of a conversation, or why the base refuses it."""
    try:
        text: str = tokenizer.apply_chat_template(
            messages, chat_template=chat_template, tokenize=False, add_generation_prompt=True, **rewards
        )
    except jinja2.TemplateError as error:
        return f"refused: {error}"
    return text
