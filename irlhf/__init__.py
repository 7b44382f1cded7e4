"""Align a language model by putting the reward in the prompt.

    import irlhf

    irlhf.prepare(["hh.jsonl.gz"], "examples.jsonl")
    irlhf.score("examples.jsonl", "rewards.yaml", "scored.jsonl")
    irlhf.finetune("scored.jsonl", "policy", model="tiny")

The functions are the commands of the same names; `run_rounds` is `irlhf rounds`. Each reads plain files, writes
plain files and returns its summary as a dict.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; at run time `__getattr__` loads a function when it is used
    from irlhf.data.prepare import prepare as prepare
    from irlhf.data.settings import PrepareSettings as PrepareSettings
    from irlhf.evaluation.evaluate import evaluate as eval
    from irlhf.evaluation.settings import EvalSettings as EvalSettings
    from irlhf.plotting.plot import plot as plot
    from irlhf.plotting.settings import PlotSettings as PlotSettings
    from irlhf.rounds.rounds import run_rounds as run_rounds
    from irlhf.sampling.sample import sample as sample
    from irlhf.sampling.settings import SampleSettings as SampleSettings
    from irlhf.scoring.score import score as score
    from irlhf.scoring.settings import ScoreSettings as ScoreSettings
    from irlhf.training.finetune import finetune as finetune
    from irlhf.training.settings import FinetuneSettings as FinetuneSettings
    from irlhf.training.train_reward_model import train_reward_model as reward_model

__version__ = "0.1.0"
__all__ = ["eval", "finetune", "plot", "prepare", "reward_model", "run_rounds", "sample", "score"]

_SETTINGS = {
    "PrepareSettings": ("irlhf.data.settings", "PrepareSettings"),
    "ScoreSettings": ("irlhf.scoring.settings", "ScoreSettings"),
    "FinetuneSettings": ("irlhf.training.settings", "FinetuneSettings"),
    "SampleSettings": ("irlhf.sampling.settings", "SampleSettings"),
    "EvalSettings": ("irlhf.evaluation.settings", "EvalSettings"),
    "PlotSettings": ("irlhf.plotting.settings", "PlotSettings"),
}
_FUNCTIONS = {
    "prepare": ("irlhf.data.prepare", "prepare"),
    "score": ("irlhf.scoring.score", "score"),
    "finetune": ("irlhf.training.finetune", "finetune"),
    "sample": ("irlhf.sampling.sample", "sample"),
    "eval": ("irlhf.evaluation.evaluate", "evaluate"),
    "plot": ("irlhf.plotting.plot", "plot"),
    "reward_model": ("irlhf.training.train_reward_model", "train_reward_model"),
    "run_rounds": ("irlhf.rounds.rounds", "run_rounds"),
}


def __getattr__(name: str) -> Any:
    """Load an API function, or a class of settings, when it is first used."""
    known = {**_FUNCTIONS, **_SETTINGS}
    if name not in known:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, function = known[name]
    return getattr(import_module(module), function)


def __dir__() -> list[str]:
    """Return the names of the module, the API functions among them."""
    return sorted({*globals(), *__all__, *_SETTINGS})
