"""The tables of what irlhf can do, each name with the place of its code, loaded when first asked for.

A new scorer, format or picture is one file and one row here. Rows are "module:attribute" strings, so
that naming a thing never imports it: `irlhf --help` stays free of torch and its kind.
"""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from irlhf.errors import ConfigError

# The six commands as Python functions.
COMMANDS: Mapping[str, str] = {
    "prepare": "irlhf.prepare:prepare",
    "score": "irlhf.score:score",
    "finetune": "irlhf.finetune:finetune",
    "sample": "irlhf.sample:sample",
    "eval": "irlhf.evaluate:evaluate",
    "plot": "irlhf.plot:plot",
}

# Raw data that `prepare` reads. The first row whose `matches` accepts a file's first row reads it: the most specific
# shape stands first.
FORMATS: Mapping[str, str] = {
    "hh": "irlhf.prepare.hh",
    "red-team": "irlhf.prepare.red_team",
    "helpsteer3": "irlhf.prepare.helpsteer3",
    "helpsteer2-preference": "irlhf.prepare.helpsteer2_preference",
    "helpsteer": "irlhf.prepare.helpsteer",
    "ultrafeedback": "irlhf.prepare.ultrafeedback",
    "ultrafeedback-binarized": "irlhf.prepare.ultrafeedback_binarized",
    "argilla": "irlhf.prepare.argilla",
    "oasst-trees": "irlhf.prepare.oasst_trees",
    "oasst": "irlhf.prepare.oasst",
    "shp": "irlhf.prepare.shp",
    "pku-saferlhf": "irlhf.prepare.pku_saferlhf",
    "nectar": "irlhf.prepare.nectar",
    "nemo-rl": "irlhf.prepare.nemo_rl",
    "arena": "irlhf.prepare.arena",
    "summarize": "irlhf.prepare.summarize",
    "openai-dpo": "irlhf.prepare.openai_dpo",
    "steerlm": "irlhf.prepare.steerlm",
    "sharegpt": "irlhf.prepare.sharegpt",
    "rewardbench2": "irlhf.prepare.rewardbench2",
    "rewardbench": "irlhf.prepare.rewardbench",
    "alpaca": "irlhf.prepare.alpaca",
    "trl-preference": "irlhf.prepare.trl_preference",
    "trl-unpaired": "irlhf.prepare.trl_unpaired",
    "trl-stepwise": "irlhf.prepare.trl_stepwise",
    "messages": "irlhf.prepare.messages",
    "prompt-completion": "irlhf.prepare.prompt_completion",
}

# What stands before the first colon of `scorer:` in rewards.yaml.
SCORERS: Mapping[str, str] = {
    "length": "irlhf.score.rules:Length",
    "distinct": "irlhf.score.rules:Distinct",
    "regex": "irlhf.score.rules:Regex",
    "format": "irlhf.score.rules:Format",
    "readability": "irlhf.score.readability:Readability",
    "sentiment": "irlhf.score.sentiment:Sentiment",
    "hf": "irlhf.score.classifier:Classifier",
    "command": "irlhf.score.command:Command",
    "openai": "irlhf.score.judge:Judge",
    "binary": "irlhf.score.judge:Verdict",
    "vllm": "irlhf.score.served:Served",
    "moderation": "irlhf.score.served:Moderation",
    "http": "irlhf.score.served:Endpoint",
    "https": "irlhf.score.served:Endpoint",
}

# Who works on pools of rows for `score` and `sample`: what `--engine` names, and threads for what a server answers.
ENGINES: Mapping[str, str] = {
    "local": "irlhf.engines.pools:here",
    "ray": "irlhf.engines.cluster:answered",
    "threads": "irlhf.engines.threads:answered",
}

# Where somebody else's package offers scorers by name.
SCORER_ENTRY_POINTS = "irlhf.scorers"

# Pictures that `plot` draws, each from one kind of file, in the order of the report.
PICTURES: Mapping[str, str] = {
    "target-actual": "irlhf.plot.target_actual",
    "gold": "irlhf.plot.gold",
    "at-least": "irlhf.plot.at_least",
    "crosstalk": "irlhf.plot.crosstalk",
    "tradeoff": "irlhf.plot.tradeoff",
    "profile": "irlhf.plot.profile",
    "price": "irlhf.plot.price",
    "comparison": "irlhf.plot.comparison",
    "pairs": "irlhf.plot.pairs",
    "distribution": "irlhf.plot.distribution",
    "correlations": "irlhf.plot.correlations",
    "rounds": "irlhf.plot.rounds",
    "rounds-target-actual": "irlhf.plot.rounds_target_actual",
    "rounds-kept": "irlhf.plot.rounds_kept",
    "training": "irlhf.plot.training",
}


def resolve(door: str) -> Any:
    """Import "package.module:attribute", or "package.module" itself."""
    module, _, attribute = door.partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'length'?" for a near miss, else the names there are."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f" (there are: {', '.join(names)})" if names else ""


def scorer_names() -> dict[str, str]:
    """Return every scorer that can be named: ours, and those that installed packages offer."""
    from importlib.metadata import entry_points

    offered = {point.name: point.value for point in entry_points(group=SCORER_ENTRY_POINTS)}
    return {**offered, **SCORERS}


def lookup(table: Mapping[str, str], name: str, kind: str) -> Any:
    """Load the row called `name`, or raise ConfigError with the nearest name."""
    if name not in table:
        raise ConfigError(f"unknown {kind} '{name}'{did_you_mean(name, table)}")
    return resolve(table[name])
