"""Training in two processes: the losses of one, and nothing lost when a worker is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import Bench, call, names, read, wait_until, write
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "irlhf")
pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]


def command(bench: Bench, epochs: float) -> list[str]:
    return ["finetune", str(bench.scored), "-r", str(bench.rewards), "--epochs", str(epochs), "--context", "128", "-o"]


def losses(folder: str) -> list[float]:
    return [row.get("loss", row.get("validation_loss", 0.0)) for row in read(Path(folder) / "metrics.jsonl")]


def base_that_shares(bench: Bench) -> Path:
    """A base of over a million parameters, from which on completions share their prompt."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(bench.policy)
    sizes = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes)
    for one in (LlamaForCausalLM(config), tokenizer):
        one.save_pretrained("base")
    return Path("base")


@pytest.mark.parametrize("options", ["", "shared", "--objective contrast"])
def test_two_processes_have_the_losses_of_one(options: str, bench: Bench) -> None:
    shared = options == "shared"
    options = f"--model {base_that_shares(bench)} --learning-rate 1e-3" if shared else options
    rows = read(bench.scored)[:120]
    others = [{**row, "id": f"{row['id']}-b", "completion": f"Never mind, {row['completion']}"} for row in rows]
    pairs = write(Path("pairs.jsonl"), [*rows, *others])
    asked = ["finetune", str(pairs), *command(bench, 0.7)[2:-1], *options.split(), "-o"]
    made = subprocess.run([*TORCHRUN, *asked, "two"], capture_output=True, text=True, timeout=120, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    assert made.stderr.count("wrote the policy") == 1
    assert ("prompts are computed once for all their completions" in made.stderr) == shared
    assert call(*asked, "one").code == 0
    assert losses("two") == pytest.approx(losses("one"), abs=1e-4)
    one, two = (load_file(Path(folder) / "model.safetensors") for folder in ("one", "two"))
    # Adam divides by small gradients, so that a difference in the last digit grows.
    assert all(torch.allclose(one[name], two[name], atol=1e-3) for name in one)
    assert names(Path("one")) == names(Path("two"))


def workers() -> list[int]:
    """The processes that torchrun started in this folder."""
    here = str(Path.cwd())
    found = []
    for one in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(one / "cwd") == here and b"RANK=1" in (one / "environ").read_bytes().split(b"\0"):
                found.append(int(one.name))
        except OSError:
            continue  # gone meanwhile
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker in /proc")
def test_a_killed_worker_costs_no_more_than_the_way_from_the_last_checkpoint(bench: Bench) -> None:
    line = [*TORCHRUN, *command(bench, 4), "two"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as one:
        wait_until(lambda: list(Path().glob("two.partial/checkpoint-*/COMPLETE")), 90)
        for worker in workers():
            os.kill(worker, signal.SIGKILL)
        assert one.wait(60) != 0
    assert "two" not in names(Path.cwd())
    again = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    assert "resuming from checkpoint-" in again.stderr
    assert call(*command(bench, 4), "one").code == 0
    assert losses("two") == pytest.approx(losses("one"), abs=1e-3)
