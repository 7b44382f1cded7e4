"""Several processes that train one policy together, as torchrun starts them."""

from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from irlhf.core.console import PROCESSES
from irlhf.core.errors import BackendError
from irlhf.models.loading import device

Value = TypeVar("Value")


def from_first(value: Value) -> Value:
    """Return what the first process gave; every process calls this at the same place."""
    if _count() == 1:
        return value
    held = [value]
    broadcast_object_list(held)
    return held[0]


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if _count() > 1:
        torch.distributed.barrier()


def _count() -> int:
    """Return how many processes there are. Raises BackendError where they did not find each other.

    Left to itself, accelerate makes of two processes without an accelerator two runs of one process each.
    """
    count = int(PartialState(cpu=device() == "cpu").num_processes)
    if count != PROCESSES:
        raise BackendError(f"torchrun started {PROCESSES} processes, but only {count} found each other")
    return count
