"""Registries of formats, scorers, executors and plots. Entries are imported on first use.

A scorer, a format or a plot is one file and one row here; CONTRIBUTING.md lists the tests and docs that belong to it.
Rows are "module:attribute" strings, so that `irlhf --help` does not import torch.
"""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from irlhf.core.errors import ConfigError

# Raw formats that `prepare` reads. The first one that matches a file's first row reads the file, so more specific
# formats come before more general ones.
FORMATS: Mapping[str, str] = {
    "hh": "irlhf.data.formats.anthropic:HH",
    "red-team": "irlhf.data.formats.anthropic:RED_TEAM",
    "helpsteer3": "irlhf.data.formats.nvidia:HELPSTEER3",
    "helpsteer2-preference": "irlhf.data.formats.nvidia:HELPSTEER2_PREFERENCE",
    "helpsteer": "irlhf.data.formats.nvidia:HELPSTEER",
    "ultrafeedback": "irlhf.data.formats.ultrafeedback:ULTRAFEEDBACK",
    "ultrafeedback-binarized": "irlhf.data.formats.ultrafeedback:BINARIZED",
    "argilla": "irlhf.data.formats.argilla:ARGILLA",
    "oasst-trees": "irlhf.data.formats.openassistant:OASST_TREES",
    "oasst": "irlhf.data.formats.openassistant:OASST",
    "shp": "irlhf.data.formats.shp:SHP",
    "pku-saferlhf": "irlhf.data.formats.pku_saferlhf:PKU_SAFERLHF",
    "nectar": "irlhf.data.formats.nectar:NECTAR",
    "nemo-rl": "irlhf.data.formats.nvidia:NEMO_RL",
    "arena": "irlhf.data.formats.arena:ARENA",
    "summarize": "irlhf.data.formats.summarize:SUMMARIZE",
    "openai-dpo": "irlhf.data.formats.openai:DPO",
    "steerlm": "irlhf.data.formats.nvidia:STEERLM",
    "sharegpt": "irlhf.data.formats.sharegpt:SHAREGPT",
    "rewardbench2": "irlhf.data.formats.rewardbench:REWARDBENCH2",
    "rewardbench": "irlhf.data.formats.rewardbench:REWARDBENCH",
    "alpaca": "irlhf.data.formats.alpaca:ALPACA",
    "trl-preference": "irlhf.data.formats.trl:PREFERENCE",
    "trl-unpaired": "irlhf.data.formats.trl:UNPAIRED",
    "trl-stepwise": "irlhf.data.formats.trl:STEPWISE",
    "messages": "irlhf.data.formats.openai:MESSAGES",
    "prompt-completion": "irlhf.data.formats.prompt_completion:PROMPT_COMPLETION",
}

# Scorers by the text before the first colon of `scorer:` in rewards.yaml.
SCORERS: Mapping[str, str] = {
    "length": "irlhf.scoring.scorers.rules:Length",
    "distinct": "irlhf.scoring.scorers.rules:Distinct",
    "regex": "irlhf.scoring.scorers.rules:Regex",
    "format": "irlhf.scoring.scorers.rules:Format",
    "readability": "irlhf.scoring.scorers.readability:Readability",
    "sentiment": "irlhf.scoring.scorers.sentiment:Sentiment",
    "hf": "irlhf.scoring.scorers.classifier:Classifier",
    "command": "irlhf.scoring.scorers.shell_command:ShellCommand",
    "openai": "irlhf.scoring.scorers.llm_judge:LLMJudge",
    "binary": "irlhf.scoring.scorers.llm_judge:Verdict",
    "vllm": "irlhf.scoring.scorers.server:Served",
    "moderation": "irlhf.scoring.scorers.server:Moderation",
    "http": "irlhf.scoring.scorers.server:Endpoint",
    "https": "irlhf.scoring.scorers.server:Endpoint",
}

# Executors of `score` and `sample`, by the names of `--executor`; `threads` is for requests to servers.
ENGINES: Mapping[str, str] = {
    "local": "irlhf.executors.base:run_here",
    "ray": "irlhf.executors.ray:run_on_ray",
    "threads": "irlhf.executors.threads:run_in_threads",
}

# Entry point group through which other packages provide scorers.
SCORER_ENTRY_POINTS = "irlhf.scorers"

# Plots of `irlhf plot`, each drawn from one kind of file, in the order of the report.
PICTURES: Mapping[str, str] = {
    "target-actual": "irlhf.plotting.target_actual",
    "gold": "irlhf.plotting.gold",
    "at-least": "irlhf.plotting.at_least",
    "crosstalk": "irlhf.plotting.crosstalk",
    "tradeoff": "irlhf.plotting.tradeoff",
    "profile": "irlhf.plotting.profile",
    "price": "irlhf.plotting.costs",
    "comparison": "irlhf.plotting.comparison",
    "pairs": "irlhf.plotting.pairs",
    "distribution": "irlhf.plotting.distribution",
    "correlations": "irlhf.plotting.correlations",
    "rounds": "irlhf.plotting.rounds",
    "rounds-target-actual": "irlhf.plotting.rounds_target_actual",
    "rounds-kept": "irlhf.plotting.rounds_kept",
    "training": "irlhf.plotting.training",
}


def resolve(import_path: str) -> Any:
    """Import and return "package.module:attribute" or "package.module"."""
    module, _, attribute = import_path.partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'length'?" for a close match, else the list of known names."""
    names = sorted(known)
    near = [known for known in names if name and known.startswith(f"{name}-")]  # trl for trl-preference
    near = near or difflib.get_close_matches(name, names, n=1)
    if len(near) > 1:
        return f"; did you mean one of {', '.join(near)}?"
    if near:
        return f"; did you mean '{near[0]}'?"
    return f" (available: {', '.join(names)})" if names else ""


def scorer_names() -> dict[str, str]:
    """Return the import path of every scorer: the built-in ones, and those of installed packages."""
    from importlib.metadata import entry_points

    offered = {point.name: point.value for point in entry_points(group=SCORER_ENTRY_POINTS)}
    return {**offered, **SCORERS}


def lookup(table: Mapping[str, str], name: str, kind: str) -> Any:
    """Import the entry `name` of a table. Raises ConfigError with the nearest name."""
    if name not in table:
        raise ConfigError(f"unknown {kind} '{name}'{did_you_mean(name, table)}")
    return resolve(table[name])
