"""The benchmarks: what they count as work, when a loss counts as reached, and what pages say of results."""

import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from toolbox import ROOT
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="an sdist has no benchmarks")


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return import_module(name)


def test_the_work_of_an_encoder_is_what_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 160}
    config = BertConfig(vocab_size=50, num_labels=1, attn_implementation="eager", **sizes)
    model = BertForSequenceClassification(config).eval()
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        for tokens in (30, 200):
            model(input_ids=torch.ones((1, tokens), dtype=torch.long))
    expected = counted.get_total_flops() / 1e9
    assert script("score", monkeypatch).work(config, [30, 200]) == pytest.approx(expected, rel=1e-3)


def test_the_time_to_a_loss_is_interpolated_between_two_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl")
    to_loss = script("to_loss", monkeypatch)
    points = [to_loss.Point(0, 0.0, 10.0), to_loss.Point(4, 2.0, 8.0), to_loss.Point(8, 6.0, 7.0)]
    found = to_loss.way(points, 7.75)
    assert (found["seconds"], found["steps"]) == (3.0, 5.0)
    with pytest.raises(SystemExit, match="was not reached"):
        to_loss.way(points, 6.5)


def test_a_memory_result_becomes_a_table_and_a_picture(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    sizes = {"1000": {"seconds": 0.1, "peak_mib": 43.0}, "10000": {"seconds": 1.5, "peak_mib": 44.0}}
    result = {load: {**sizes, "bytes a row": 47.7} for load in ("score", "sample", "killed")}
    (tmp_path / "docs" / "results" / "bench-memory.json").write_text(json.dumps(result))
    subprocess.run([sys.executable, tmp_path / "docs" / "generate.py"], check=True)
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "| sample | 10,000 | 44 | 1.5 | 150 |" in page
    assert "(memory.png)" in page
    assert (tmp_path / "docs" / "memory.png").read_bytes().startswith(b"\x89PNG")
