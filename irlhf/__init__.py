"""Align a language model by putting the reward in the prompt.

    import irlhf

    irlhf.prepare(["hh.jsonl.gz"], "examples.jsonl")
    irlhf.score("examples.jsonl", "rewards.yaml", "scored.jsonl")
    irlhf.finetune("scored.jsonl", "policy", model="tiny")

The six functions are the six commands. Each reads plain files, writes plain files and returns its
summary as a dict.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from irlhf.registry import COMMANDS, resolve

__version__ = "0.1.0"
__all__ = ["eval", "finetune", "plot", "prepare", "sample", "score"]

if TYPE_CHECKING:
    from irlhf.evaluate import evaluate as eval
    from irlhf.finetune import finetune as finetune
    from irlhf.plot import plot as plot
    from irlhf.prepare import prepare as prepare
    from irlhf.sample import sample as sample
    from irlhf.score import score as score


class _Package(ModuleType):
    """The package, in which a command's function stands before the folder of the same name.

    Importing irlhf.score.rules makes Python set `irlhf.score` to the folder. A property outranks
    that, and loads the function only when it is first asked for.
    """


def _command(door: str) -> property:
    def get(package: Any) -> Any:
        return resolve(door)

    def keep_the_function(package: Any, folder: Any) -> None:
        pass

    return property(get, keep_the_function)


for _name, _door in COMMANDS.items():
    setattr(_Package, _name, _command(_door))
sys.modules[__name__].__class__ = _Package
