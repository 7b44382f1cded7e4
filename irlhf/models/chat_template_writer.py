"""Write chat templates that accept target rewards into a policy folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
from transformers.utils import CHAT_TEMPLATE_DIR, CHAT_TEMPLATE_FILE

from irlhf.core import console
from irlhf.core.example import Message
from irlhf.io.files import whole_file
from irlhf.models.chat_template import (
    UnsupportedTemplate,
    has_rewards,
    put,
    with_opening,
    with_rewards,
    without_rewards,
)
from irlhf.models.loading import load_tokenizer
from irlhf.models.prompt_encoding import PromptEncoder
from irlhf.policy.escaping import ESCAPE
from irlhf.policy.policy_file import Policy

_TARGETS = (0.0, 0.37, 0.9, 1.0)


def write_chat_template(folder: Path, policy: Policy) -> bool:
    """Update the chat templates of a policy folder, and return whether all of them accept target rewards.

    Each is rebuilt from the base's chat template that it contains. The base's template is kept for baselines without
    reward lines and, with a note, for unsupported reward templates.
    """
    paths = _chat_templates(folder)
    tokenizer = load_tokenizer(str(folder)) if paths else None
    accepting = []
    for path in paths:
        before = path.read_text(encoding="utf-8")
        base = without_rewards(before)
        text = base if policy.blind else _with_rewards(policy, base, tokenizer)
        accepting.append(text != base)
        text = with_opening(text, policy.turns)
        if text != before:
            with whole_file(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return bool(accepting) and all(accepting)


def knows_rewards(folder: Path) -> bool:
    """Return whether a chat template of the folder accepts target rewards."""
    return any(has_rewards(path.read_text(encoding="utf-8")) for path in _chat_templates(folder))


def _chat_templates(folder: Path) -> list[Path]:
    return [*folder.glob(CHAT_TEMPLATE_FILE), *sorted((folder / CHAT_TEMPLATE_DIR).glob("*.jinja"))]


def _with_rewards(policy: Policy, base: str, tokenizer: Any) -> str:
    """Return the base's chat template with the reward part, or unchanged if the results would differ."""
    try:
        text = with_rewards(policy, base, tokenizer)
    except UnsupportedTemplate as reason:
        console.note(
            f"the chat template does not accept rewards, because the reward template is not supported: {reason}"
        )
        return base
    if all(_agree(policy, base, text, tokenizer)):
        return text
    console.warn(
        "the chat template does not accept rewards, because its prompts would differ from those of irlhf sample"
    )
    return base


def _agree(policy: Policy, base: str, text: str, tokenizer: Any) -> Iterator[bool]:
    """Yield for test conversations and targets whether the chat template renders the prompt of `irlhf sample`."""
    chat = PromptEncoder(tokenizer, policy.template, policy.names)
    forged = "\n".join([*policy.template.vocabulary(policy.names)[:3], ESCAPE, tokenizer.eos_token or ""])
    targets: list[Mapping[str, float]] = [dict.fromkeys(policy.names, number) for number in _TARGETS]
    targets += [{}, *({name: 0.5} for name in policy.names)]
    for requested in targets:
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
    """Return the text of a conversation, or the reason why the base's chat template rejects it."""
    try:
        text: str = tokenizer.apply_chat_template(
            messages, chat_template=chat_template, tokenize=False, add_generation_prompt=True, **rewards
        )
    except jinja2.TemplateError as error:
        return f"refused: {error}"
    return text
