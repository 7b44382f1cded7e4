"""--precision: which number format a model's weights get."""

import os
import subprocess
import sys
import time

import pytest
import torch

from irlhf.errors import ConfigError
from irlhf.models.precision import bfloat16_speedup, precision_name, resolve_precision

LARGE = 135_000_000  # parameters


def test_a_requested_precision_is_taken_as_given() -> None:
    assert resolve_precision("bf16", 1) == torch.bfloat16
    assert resolve_precision("fp32", LARGE) == torch.float32


def test_a_small_model_keeps_float32_on_auto() -> None:
    assert resolve_precision("auto", 1_000_000) == torch.float32


def test_auto_takes_bfloat16_exactly_where_products_are_clearly_faster() -> None:
    speedup = bfloat16_speedup(576)
    if 1.2 < speedup < 1.4:
        pytest.skip(f"bfloat16 is {speedup:.2f} times as fast here, too close to the threshold")
    assert resolve_precision("auto", LARGE, 576) == (torch.bfloat16 if speedup > 1.3 else torch.float32)


def test_a_processor_without_bfloat16_instructions_gets_float32() -> None:
    code = "from irlhf.models.precision import resolve_precision; print(resolve_precision('auto', 135_000_000, 576))"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "torch.float32"


def test_the_timing_takes_under_half_a_second_and_leaves_the_number_of_threads() -> None:
    threads = torch.get_num_threads()
    start = time.process_time()
    bfloat16_speedup(4096)
    assert time.process_time() - start < 0.5
    assert torch.get_num_threads() == threads


def test_an_unknown_precision_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown --precision 'bf61'; did you mean 'bf16'"):
        resolve_precision("bf61", LARGE)


@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_a_dtype_has_the_name_that_requests_it(name: str) -> None:
    assert precision_name(resolve_precision(name, LARGE)) == name
