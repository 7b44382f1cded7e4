"""Communication between the training processes started by torchrun."""

from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from irlhf.core.console import PROCESSES
from irlhf.core.errors import BackendError
from irlhf.models.loading import device

Value = TypeVar("Value")


def from_first(value: Value) -> Value:
    """Return the value of the first process. All processes must call this function together."""
    if _count() == 1:
        return value
    values = [value]
    broadcast_object_list(values)
    return values[0]


def wait_for_all() -> None:
    """Wait until all processes have called this function."""
    if _count() > 1:
        torch.distributed.barrier()


def _count() -> int:
    """Return the number of processes. Raises BackendError if they are not connected.

    Without an accelerator, accelerate may otherwise run each process separately.
    """
    count = int(PartialState(cpu=device() == "cpu").num_processes)
    if count != PROCESSES:
        raise BackendError(
            f"torchrun started {PROCESSES} processes, but only {count} are connected; check the torchrun options"
        )
    return count
