"""The benchmarks: what they count as work, when a loss counts as reached, and what pages say of results."""

import json
import os
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ROOT, wait_until
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

from irlhf.data.prepare import prepare

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


@pytest.mark.parametrize("peer", ["plain", "datasets"])
def test_the_peers_of_prepare_write_its_rows(peer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if peer == "datasets":
        pytest.importorskip("datasets", reason="irlhf[bench] is not installed")
        monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    bench, peers = script("prepare", monkeypatch), script("hh_peers", monkeypatch)
    source = bench.make(tmp_path, 2000)
    for arm in ("irlhf", peer):
        (tmp_path / arm).mkdir()
    done = prepare([source], tmp_path / "irlhf" / "out.jsonl")
    found = {"plain": peers.plain, "datasets": peers.mapped}[peer](source, tmp_path / peer / "out.jsonl")
    assert bench.compare(source, ["irlhf", peer]) == done["written"]
    # Some of each, or the pairs were too clean to tell.
    for count in ("rejected", "special tokens"):
        assert 0 < found[count] == done[count]
    assert {"noted prompts differ", "noted completions equal", "noted consecutive turns of one role joined"} <= set(
        done
    )
    (tmp_path / peer / "out.jsonl").write_text('{"id": "another"}\n')
    with pytest.raises(SystemExit, match=f"row 1 is not the same in irlhf, {peer}"):
        bench.compare(source, ["irlhf", peer])


def test_the_memory_of_a_run_is_that_of_all_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = script("prepare", monkeypatch)
    below = "import time; full = b'x' * 2**26; time.sleep(30)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {below!r}])"
    with subprocess.Popen([sys.executable, "-c", code], process_group=0) as begun:
        if not Path(f"/proc/{begun.pid}/task/{begun.pid}/children").exists():
            begun.kill()
            pytest.skip("who began whom is not told here")
        wait_until(lambda: sum(map(bench._peak, bench._family(begun.pid))) >= 2**16)
        os.killpg(begun.pid, signal.SIGKILL)


def test_what_a_pair_takes_is_told_where_as_many_processes_run(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = {"10000": {"peak_mib": 40.0}, "100000": {"peak_mib": 100.0}, "1000000": {"peak_mib": 145.0}}
    assert script("prepare", monkeypatch).growth(peaks) == round(45 * 2**20 / 900_000, 1)


@pytest.mark.slow
def test_a_result_of_prepare_becomes_tables(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    middle = {"median": 2.0, "least": 1.5, "most": 2.5, "n": 3}
    rates = {arm: {**middle, "median": rate} for arm, rate in (("irlhf", 30000.0), ("datasets", 7500.0))}
    against = {"per_second": rates, "best_peer": "datasets", "ratio": middle, "processor ratio": middle}
    sizes = {"10000": {"peak_mib": 40.2}, "100000": {"peak_mib": 41.0}, "bytes a pair": 9.3}
    result = {
        "machine": {"cores": 2},
        "data": "7 pairs",
        "written": 14,
        "processor seconds": dict.fromkeys(rates, middle),
        "against datasets": against,
        "memory": dict.fromkeys(rates, sizes),
    }
    (tmp_path / "docs" / "results" / "bench-prepare.json").write_text(json.dumps(result))
    subprocess.run([sys.executable, tmp_path / "docs" / "generate.py"], check=True)
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    row = "| prepare (pairs), 7 pairs, against datasets | 30,000 | datasets | 7,500 | 2.00 [1.50, 2.50] | 3 |"
    assert row in page
    assert "| datasets | 30,000, 7,500 | 2.00 [1.50, 2.50] | 2.0, 2.0 | 2.00 [1.50, 2.50] | 3 |" in page
    assert "| irlhf | 40 | 41 | 9 |" in page


@pytest.mark.slow
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
