"""Write README.md, the model card in the folder of a policy or a reward model."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from irlhf.core.bootstrap import few_prompts
from irlhf.core.console import CONTROL_CHARACTERS
from irlhf.io.files import whole_file
from irlhf.io.markdown import escaped, fenced, table_row, write_page
from irlhf.policy.policy_file import TINY, Policy, PolicyReward
from irlhf.policy.scales import UNIT, nearest

FILE = "README.md"

_TEMPLATE, _REWARD_TEMPLATE = "policy/model-card.md.jinja", "policy/reward-model-card.md.jinja"
_BEGIN, _END = "<!-- irlhf: figures -->", "<!-- end -->"
# The last block is used: quoted prompts above it may look like one.
_BLOCK = re.compile(rf"^{_BEGIN}\r?\n(?P<figures>(?:(?!^{_BEGIN}).)*?)^{_END}".encode(), re.MULTILINE | re.DOTALL)
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_QUESTION = "How do I repot a fern?"
_SHOWN = ("p1", "p10", "p50", "p90", "p99")
_WHAT = {
    "": "A language model that reads in its prompt which rewards its answer should earn.",
    "plain": "A baseline: trained on the same rows as a policy, without rewards in their prompts.",
    "chosen": "A baseline: trained on the better rows alone, without rewards in their prompts.",
    "top": "A baseline: trained on the best rows alone, without rewards in their prompts.",
    "prompted": "A baseline: its base model as it is, not trained, with rewards requested in the prompt.",
}
_SCALES = {
    "quantile": "`quantile`: 0.9 is better than 90% of the training rows.",
    "within": "`within`: 0.9 is better than 90% of the completions of the same prompt.",
    "zscore": "`zscore`: standard deviations above the mean of the training rows.",
    "linear": "`linear`: 0 is the worst and 1 the best, both fixed before training.",
    "none": "`none`: the raw reward itself.",
}
_TINY_ENCODER = "the built-in `tiny`, here a small encoder from scratch"
_SHOWN_AS = {
    "chat": "It reads the conversation through the chat template of its tokenizer.",
    "pair": "It reads prompt and completion as the two texts of a pair.",
}
_HEAD = ("samples", "reward", "n", "within prompts", "pooled", "mean error", "shuffled targets", "best constant")
_LEGEND = (
    "`within prompts` and `pooled` are Spearman's correlation of target and actual reward, over the"
    " samples of one prompt (mean over prompts) and over all samples. `mean error` is their mean absolute distance in"
    " the units of the scale; the two columns behind it are what no steering at all would have. In brackets:"
    " 95% bootstrap intervals, clustered by prompt."
)


class _Base(NamedTuple):
    """The public name of a base model, never a local path."""

    name: str
    description: str
    hub: str = ""  # its id on the hub, if it has one


def write_model_card(folder: Path, policy: Policy, dial: bool = False) -> None:
    """Write the model card of a policy that was read from its folder. Equal policies get equal cards.

    `dial` says whether the chat template of the policy accepts rewards. Raises OutputError.
    """
    from irlhf.policy.model_card_metadata import front_matter

    base = _base(policy.base)
    requested = {reward.name: _wish(policy, reward) for reward in policy.rewards}
    messages = policy.template.render(_QUESTION, requested, policy.names)
    names = ", ".join(escaped(name) for name in policy.names)
    spoken = policy.template.spelling
    write_page(
        folder / FILE,
        _TEMPLATE,
        front=front_matter(base.name, base.hub, "text-generation", ["alignment", "upside-down-rl"]),
        policy=policy,
        base=base,
        title=f"{base.name}, {f'baseline {policy.baseline}' if policy.baseline else f'steered by {names}'}",
        what=_WHAT.get(policy.baseline, _WHAT[""]),
        command=_command(requested),
        requested=", ".join(f"{escaped(name)} {escaped(spoken(number))}" for name, number in requested.items()),
        example="\n\n".join(f"{message['role']}:\n\n{fenced(message['content'])}" for message in messages),
        dial=dial,
        snippet=_snippet([{"role": "user", "content": _QUESTION}], requested) if dial else _snippet(messages, {}),
        request=_request(requested) if dial else "",
        rewards=[_reward_row(reward) for reward in policy.rewards],
        scales=" ".join(_SCALES[kind] for kind in dict.fromkeys(reward.scale.kind for reward in policy.rewards)),
        training=list(_training(policy)),
        limits=list(_limits(policy, dial)),
    )


def write_reward_model_card(folder: Path, description: Mapping[str, Any]) -> None:
    """Write the model card of a reward model from its reward.json. Raises OutputError."""
    from irlhf.policy.model_card_metadata import front_matter, reward_model_results

    base, figures = _base(description["base"]), description.get("validation")
    rating = description["settings"].get("reward", "")
    kind = "ratings" if rating else "pairs"
    results = reward_model_results(kind, figures) if figures else []
    write_page(
        folder / FILE,
        _REWARD_TEMPLATE,
        front=front_matter(base.name, base.hub, "text-classification", ["reward-model"], results),
        base=base,
        description=_TINY_ENCODER if description["base"] == TINY else base.description,
        reward=rating,
        name=rating or "helpful",
        rewards=fenced(f'rewards:\n  {rating or "helpful"}: {{scorer: "./FOLDER"}}', "yaml"),
        command=fenced("irlhf score examples.jsonl -r rewards.yaml", "sh"),
        shown=_SHOWN_AS[description["shown"]],
        pairs=f"{figures['n']:,} {kind} of {figures['prompts']:,} prompts" if figures else "",
        few=few_prompts({"validation": figures["prompts"]}) if figures else "",
        held_out=description["data"]["validation pairs are from"],
        figures=list((_rating_figures if rating else _pair_figures)(figures)) if figures else [],
        training=list(_pair_training(description)),
    )


def fill_model_card(folder: Path, evaluation: Mapping[str, Any], digest: str) -> bool:
    """Write the figures of one policy into its card; return whether the card has the markers for them.

    The figures stand between the markers and, for programs, in the front matter (`model-index`). A card without markers
    was edited by its owner and is not changed. Raises OutputError.
    """
    from irlhf.policy.model_card_metadata import with_results

    path = folder / FILE
    content = path.read_bytes() if path.is_file() else b""
    evaluated = [arm for arm in evaluation["policies"].values() if arm.get("digest") == digest]
    blocks = list(_BLOCK.finditer(content))
    if not blocks or not evaluated:
        return False
    lines = [table_row(_HEAD), table_row(["---", "---", *["---:"] * (len(_HEAD) - 2)])]
    lines += [table_row(row) for arm in evaluated for row in _figure_rows(arm)]
    figures = "\n".join([*lines, "", _LEGEND, ""]).encode()
    begin, end = blocks[-1].span("figures")
    with whole_file(path) as temporary:
        temporary.write_bytes(with_results(content[:begin] + figures + content[end:], evaluated))
    return True


def _base(given: str) -> _Base:
    if given == TINY:
        return _Base(TINY, "the built-in `tiny`, a small Llama from scratch")
    path = Path(given).expanduser()
    if path.is_dir() or not _HUB.fullmatch(given):
        name = escaped(path.name or path.resolve().name) or "a folder"
        return _Base(name, f"the base model {name}")
    return _Base(given, f"the base model [{given}](https://huggingface.co/{given})", given)


def _wish(policy: Policy, reward: PolicyReward) -> float:
    """Return the target of the example in the card: high, but within the training data."""
    if reward.scale.kind in UNIT:
        known = policy.known(reward.name)
        return policy.template.spelling.centre(nearest(0.9, known)) if known else 0.9
    return reward.scale(reward.percentiles["p10" if reward.scale.direction == "lower" else "p90"])


def _command(requested: Mapping[str, float]) -> str:
    targets = (shlex.quote(f"{name}={number:.3g}") for name, number in requested.items())
    return fenced(" -t ".join(["irlhf sample POLICY prompts.jsonl", *targets]), "sh")


def _snippet(messages: list[dict[str, Any]], requested: Mapping[str, float]) -> str:
    rewards = f"rewards = {_shown(requested)}\n" if requested else ""
    given = 'tokenizer_encode_kwargs={"rewards": rewards}, ' if requested else ""
    return fenced(
        "from transformers import pipeline\n\n"
        f"messages = {_shown(messages)}\n{rewards}"
        'policy = pipeline("text-generation", "POLICY")\n'
        f"answer = policy(messages, {given}max_new_tokens=128, return_full_text=False)\n"
        'print(answer[0]["generated_text"])',
        "python",
    )


def _request(requested: Mapping[str, float]) -> str:
    """Return an example request for a server with the OpenAI API."""
    messages = [{"role": "user", "content": _QUESTION}]
    body = {"model": "POLICY", "messages": messages, "chat_template_kwargs": {"rewards": requested}}
    return fenced(_shown(body, indent=2), "json")


def _shown(value: object, indent: int | None = None) -> str:
    # JSON of texts is valid Python. Control characters are escaped because they affect terminals.
    return CONTROL_CHARACTERS.sub(
        lambda sign: f"\\u{ord(sign[0]):04x}", json.dumps(value, ensure_ascii=False, indent=indent)
    )


def _reward_row(reward: PolicyReward) -> list[str]:
    percentiles = [f"{reward.percentiles[name]:.4g}" for name in _SHOWN]
    return [escaped(reward.name), reward.scale.direction, reward.scale.kind, f"{reward.weight:g}", *percentiles]


def _training(policy: Policy) -> Iterator[tuple[str, str]]:
    known, settings = policy.training, policy.training["settings"]
    if policy.baseline == "prompted":
        yield "training", "none; the scales of the rewards were fitted on scored rows"
    else:
        plan = known["plan"]
        yield "rows", f"{known['rows']:,}"
        yield "completion tokens in them", f"{known['completion tokens']:,}"
        yield "steps", f"{plan['steps']:,}, each of {settings['batch']} rows"
        yield "learning rate", f"{plan['rate']:g} at its peak, then a cosine"
        if settings["lora"]:
            end = "added to the weights" if settings["merge"] else "kept apart: loading them needs the base and `peft`"
            yield "trained", f"low-rank updates of rank {settings['lora']} alone, {end}"
        if not policy.blind:
            yield "chance that a reward line was left out", f"{settings['drop']:g}"
    yield "seed", str(settings["seed"])
    yield "context", f"{policy.context:,} tokens of prompt and completion together"
    yield from _made_with(known)


def _pair_training(description: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    plan, settings = description["plan"], description["settings"]
    kind = "ratings" if settings.get("reward") else "pairs"
    yield kind, f"{description['data'][kind]:,}"
    if settings["half"]:
        yield "half of the prompts", f"{settings['half']}, which shares no prompt with the other"
    yield "steps", f"{plan['steps']:,}, each of {settings['batch']} {kind}"
    yield "learning rate", f"{plan['rate']:g} at its peak, then a cosine"
    yield "seed", str(settings["seed"])
    yield (
        "context",
        f"{description['context']:,} tokens of prompt and completion together; longer rows lose their beginning",
    )
    yield from _made_with(description)


def _made_with(known: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "numbers of the weights", known["dtype"]
    yield "versions", ", ".join(f"{name} {number}" for name, number in known["versions"].items())
    yield "digest of the weights", f"`{known['weights']}` (sha256 over the sha256 of every file of them)"


def _pair_figures(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "prefers the completion that people chose", _interval(figures["accuracy"])
    yield "so does always taking the longer", _interval(figures["longer"])
    yield "so does always taking the shorter", _interval(figures["shorter"])
    yield "above the better of these two by", _interval(figures["above_rule"])
    yield "log loss (a coin has 0.693)", _interval(figures["calibration"]["log_loss"])
    yield "Brier score (a coin has 0.25)", _interval(figures["calibration"]["brier"])
    yield "expected calibration error", _interval(figures["calibration"]["ece"])


def _rating_figures(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "rank correlation with the ratings", _interval(figures["spearman"])
    yield "rank correlation of the length with the ratings", _interval(figures["length"])
    yield "above the length by", _interval(figures["above_rule"])
    yield "mean absolute error, in units of the ratings", _interval(figures["error"])
    yield "mean absolute error of the median rating", _interval(figures["error_constant"])


def _limits(policy: Policy, dial: bool) -> Iterator[str]:
    yield "A reward is what its scorer gives. It is not more than that, whatever its name says."
    yield "How well the answers follow holds for the prompts and the decoding that were measured, and for no others."
    if not policy.blind:
        escape = "`irlhf sample` and the chat template escape" if dial else "`irlhf sample` escapes"
        yield (
            f"{escape} what looks like a reward line in a user's text. Whoever writes the prompt by hand must do so"
            " too, or users can ask for themselves."
        )
    if dial:
        yield "Whoever may choose `chat_template_kwargs`, or bring another chat template, chooses the rewards."
    if policy.base == TINY and policy.baseline != "prompted":
        yield "It knows nothing but the words of its training rows."
    if policy.baseline == "prompted":
        yield "It was never shown what the numbers mean, and knows each reward by its name alone."
    yield "This card states no licence: the base model's and the training data's decide."


def _figure_rows(arm_figures: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the table row of each reward with a target of its own."""
    name = escaped(arm_figures["name"]) + (" (not shown its targets)" if arm_figures.get("blind") else "")
    if not arm_figures["rewards"]:
        yield [name, "weights only", f"{arm_figures['samples']:,}", *["not available"] * (len(_HEAD) - 3)]
    for reward, metrics in arm_figures["rewards"].items():
        error = metrics["error"]
        yield [
            name,
            escaped(reward),
            f"{metrics['n']:,} of {metrics['prompts']:,} prompts",
            _interval(metrics["within"].get("spearman")),
            _interval(metrics["pooled"].get("spearman")),
            _interval(error["mean_absolute"]),
            f"{error['floor_permuted']:.3f}",
            f"{error['floor_constant']:.3f}",
        ]


def _interval(figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return "not available"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
