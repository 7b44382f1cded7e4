"""--precision: which number format a model's weights get."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Bench, Row, call, read

from irlhf.core.errors import ConfigError
from irlhf.models.description import describe
from irlhf.models.precision import bfloat16_speedup, precision_name, resolve_precision
from irlhf.policy.policy_file import read_policy
from irlhf.sampling.local import LocalBackend
from irlhf.sampling.sample import sample
from irlhf.sampling.settings import SampleSettings

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


def command(bench: Bench, *options: object) -> list[object]:
    short = ["--limit", 3, "--max-tokens", 8, "--batch", 1, "-q"]
    return ["sample", bench.policy, bench.examples, "-t", "short=0.9", *short, *options]


def recorded(name: str = "samples.jsonl") -> str:
    settings = json.loads(Path(f"{name}.run.json").read_text())["settings"]
    return str(settings["precision"])


def test_a_model_is_described_without_loading_it(bench: Bench) -> None:
    policy, described = read_policy(bench.policy), describe(str(bench.policy))
    model = LocalBackend(bench.policy, policy, SampleSettings(max_tokens=8))
    assert described.parameters == sum(weights.numel() for weights in model.policy.model.parameters())
    assert described.width == model.policy.model.config.hidden_size
    assert (described.context, described.commit) == (policy.context, "")


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_weights_are_loaded_in_the_precision(precision: str, dtype: torch.dtype, bench: Bench) -> None:
    engine = LocalBackend(bench.policy, read_policy(bench.policy), SampleSettings(max_tokens=8, precision=precision))
    assert {weights.dtype for weights in engine.policy.model.parameters()} == {dtype}


def test_the_manifest_says_which_precision_auto_chose(bench: Bench) -> None:
    assert call(*command(bench)).code == 0
    assert recorded() == "fp32"


def cut(rows: list[Row], name: str = "samples.jsonl") -> None:
    """Leave the files as a kill behind the first row would have."""
    first = Path(name).read_bytes().splitlines(keepends=True)[0]
    Path(name).rename(f"{name}.partial")
    Path(f"{name}.partial").write_bytes(first)
    assert len(rows) > 1


def test_auto_goes_on_in_the_precision_that_the_interrupted_run_had(bench: Bench) -> None:
    assert call(*command(bench, "--precision", "bf16")).code == 0
    whole = read(Path("samples.jsonl"))
    cut(whole)
    assert call(*command(bench)).code == 0
    assert recorded() == "bf16"
    assert read(Path("samples.jsonl")) == whole


def test_another_precision_than_the_recorded_one_is_refused_by_name(bench: Bench) -> None:
    assert call(*command(bench)).code == 0
    cut(read(Path("samples.jsonl")))
    outcome = call(*command(bench, "--precision", "bf16"))
    assert outcome.code == 2
    assert "precision was fp32 and is bf16" in outcome.err


def test_what_a_deleted_output_had_recorded_does_not_count(bench: Bench) -> None:
    assert call(*command(bench, "--precision", "bf16")).code == 0
    Path("samples.jsonl").unlink()
    assert call(*command(bench)).code == 0
    assert recorded() == "fp32"


def test_logprobs_and_entropies_of_bfloat16_weights_are_close_to_those_of_float32(bench: Bench) -> None:
    def first(precision: str) -> list[tuple[float, float]]:
        settings: dict[str, Any] = {"split": "all", "limit": 40, "max_tokens": 1, "precision": precision}
        sample(bench.policy, bench.examples, f"{precision}.jsonl", SampleSettings(("short=0.9",), **settings))
        rows = read(Path(f"{precision}.jsonl"))
        return [(row["entropy"], row["logprob"]) for row in rows]

    narrow, wide = first("bf16"), first("fp32")
    assert narrow != wide
    assert [entropy for entropy, _ in narrow] == pytest.approx([entropy for entropy, _ in wide], abs=0.05)
    assert len({entropy for entropy, _ in narrow}) > 3  # float32 sums, not one of bfloat16's few numbers


def test_a_server_has_a_precision_of_its_own(bench: Bench) -> None:
    outcome = call(*command(bench, "--base-url", "http://127.0.0.1:9/v1", "--precision", "bf16"))
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "--precision applies to local weights, not to a server" in outcome.err
