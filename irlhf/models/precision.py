"""Choose the dtype of a model: bfloat16 if it is faster on this machine, else float32."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from irlhf.core.errors import ConfigError
from irlhf.core.registry import did_you_mean

PRECISIONS = AUTO, BF16, FP32 = ("auto", "bf16", "fp32")

DTYPES = {BF16: torch.bfloat16, FP32: torch.float32}
_SMALL = 20_000_000  # parameters; below it the work between the matrix products dominates
_SPEEDUP = 1.3  # required of bfloat16 matrix products on a CPU; they are only part of the work
_ROWS = 128  # of a timed product: between a decoding step and a training batch
_WIDEST = 1024  # columns; wider products take longer and show the same ratio
_REPEATS = 12
_BUDGET = 0.25  # seconds for all timed products


def check_precision(requested: str) -> None:
    """Raise ConfigError unless `requested` is "auto", "bf16" or "fp32"."""
    if requested not in PRECISIONS:
        raise ConfigError(f"unknown --precision '{requested}'{did_you_mean(requested, PRECISIONS)}")


def resolve_precision(requested: str, parameters: int, width: int = 768, device: str = "cpu") -> torch.dtype:
    """Return the dtype for a model with this many parameters and this hidden size on a device of this type.

    "bf16" and "fp32" are returned as requested. "auto" keeps float32 for models below 20 million parameters. For larger
    models it chooses bfloat16 on an accelerator that supports it, and on a CPU only if timed matrix products of the
    model's width are at least 1.3 times as fast as in float32. CPUs without bfloat16
    instructions emulate it at a fraction of float32's speed. Takes under half a second. Raises ConfigError for an
    unknown `requested`.
    """
    check_precision(requested)
    if requested != AUTO:
        return DTYPES[requested]
    if parameters < _SMALL:
        return torch.float32
    if device == "cpu":
        faster = bfloat16_speedup(width) >= _SPEEDUP
    elif device == "cuda":
        faster = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        faster = _computes_bfloat16(device)
    return torch.bfloat16 if faster else torch.float32


def precision_name(dtype: torch.dtype) -> str:
    """Return the value of --precision that requests this dtype. Raises StopIteration for any other dtype."""
    return next(name for name, known in DTYPES.items() if known == dtype)


def bfloat16_speedup(width: int) -> float:
    """Return the speedup of bfloat16 over float32 for the product [128, width] x [width, 3 * width] on this CPU.

    Both dtypes are timed alternately on one thread, and the fastest run of each counts, to reduce the effect of other
    load.
    """
    columns = min(width, _WIDEST)
    operands = {
        dtype: (torch.ones(_ROWS, columns, dtype=dtype), torch.ones(3 * columns, columns, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    }
    fastest = dict.fromkeys(operands, float("inf"))
    with torch.inference_mode(), _single_thread():
        end = time.perf_counter() + _BUDGET
        for repeat in range(_REPEATS):
            for dtype, (rows, weights) in operands.items():
                start = time.perf_counter()
                torch.nn.functional.linear(rows, weights)
                if repeat:  # the first product of a shape also prepares its kernel
                    fastest[dtype] = min(fastest[dtype], time.perf_counter() - start)
            if repeat and time.perf_counter() > end:
                break
    return fastest[torch.float32] / fastest[torch.bfloat16]


@contextmanager
def _single_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _computes_bfloat16(device: str) -> bool:
    """Return whether the device can multiply bfloat16 matrices; older macOS versions cannot."""
    try:
        sample = torch.ones(2, 2, dtype=torch.bfloat16, device=device)
        return bool((sample @ sample).sum() == 8)
    except (RuntimeError, TypeError):
        return False
