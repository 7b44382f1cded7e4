"""A real model through the commands: SmolLM2-135M-Instruct is trained, sampled, scored, evaluated and served.

`make test-real-model` runs this. The model is the folder in IRLHF_REFERENCE_BASE; without it, tests/fetch_smollm2.py
fetches one into pytest's cache.
"""

import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import IRLHF, ROOT, Row, read, wait_until, write

from irlhf.models.loading import load_tokenizer
from irlhf.models.prompt_encoding import PromptEncoder
from irlhf.policy.policy_file import read_policy

pytestmark = [pytest.mark.slow, pytest.mark.real_model, pytest.mark.timeout(900)]

THINGS = [
    *("a fern", "the moon", "a bridge", "rain", "an old map", "bread", "a lighthouse", "snow", "a violin", "the sea"),
    *("a train", "coffee", "a forest", "a market", "glass", "a clock", "salt", "a garden", "fog", "a mirror"),
    *("chess", "a river", "wool", "a desert", "paper"),
]
ASK = ("Tell me about {}.", "What is special about {}?")
ANSWERS = (
    "It is worth a look.",
    "There is much to say about {}: people have known it for a long time, many have written about it, and most of them"
    " agree that it repays a second look.",
)
REWARDS = "rewards:\n  short: {scorer: length, direction: lower}\n  varied: {scorer: 'distinct:1'}\n"
NEW_THINGS = ("a kite", "ice", "a ladder", "tea", "an owl", "a drum")
TARGETS = ("0.1", "0.9", "0.4")  # first, last, step
MAX_TOKENS = 24


@pytest.fixture(scope="module")
def base(request: pytest.FixtureRequest) -> Path:
    """The folder of the model. Skips where it cannot be had."""
    given = os.environ.get("IRLHF_REFERENCE_BASE", "")
    folder = Path(given) if given else request.config.cache.mkdir("models") / "smollm2"
    if not given and not (folder / "model.safetensors").is_file():
        script = [sys.executable, str(ROOT / "tests" / "fetch_smollm2.py"), str(folder)]
        fetched = subprocess.run(script, capture_output=True, text=True, timeout=300, check=False)
        if fetched.returncode:
            lines = fetched.stderr.strip().splitlines()
            reason = next((line for line in reversed(lines) if line.startswith("ERROR: ")), lines[-1])
            pytest.skip(f"SmolLM2 cannot be fetched ({reason}), and IRLHF_REFERENCE_BASE names no folder with it")
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"IRLHF_REFERENCE_BASE: no model.safetensors in {folder}")
    return folder


@dataclass(frozen=True)
class Files:
    """What the commands wrote."""

    folder: Path

    def rows(self, name: str) -> list[Row]:
        return read(self.folder / name)

    @property
    def policy(self) -> Path:
        return self.folder / "policy"


def run(folder: Path, *arguments: object) -> str:
    """Run a command with all cores, print its time and return its messages."""
    begun = time.monotonic()
    cores = {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    command = [*IRLHF, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **cores}, capture_output=True, text=True, check=False)
    print(f"== irlhf {arguments[0]}: {time.monotonic() - begun:.0f} s")
    assert done.returncode == 0, f"irlhf {' '.join(map(str, arguments))}\n{done.stderr}"
    return done.stderr


@pytest.fixture(scope="module")
def files(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of prepare, score, finetune, sample, score, eval and plot."""
    folder = tmp_path_factory.mktemp("real")
    asked = [ask.format(thing) for thing in THINGS for ask in ASK]
    rows = [
        {"prompt": prompt, "completion": answer.format(thing)}
        for prompt, thing in zip(asked, [thing for thing in THINGS for _ in ASK], strict=True)
        for answer in ANSWERS
    ]
    write(folder / "rows.jsonl", rows)
    write(folder / "prompts.jsonl", [{"prompt": f"Write about {thing}."} for thing in NEW_THINGS])
    (folder / "rewards.yaml").write_text(REWARDS)
    run(folder, "prepare", "rows.jsonl", "-o", "examples.jsonl", "--test", "0", "--validation", "0")
    run(folder, "score", "examples.jsonl", "-r", "rewards.yaml", "-o", "scored.jsonl")
    trained = ("--model", base.resolve(), "--lora", "8", "--epochs", "1", "--batch", "10")
    run(folder, "finetune", "scored.jsonl", "-r", "rewards.yaml", *trained, "-o", "policy")
    drawn = ("-t", f"short={':'.join(TARGETS)}", "--max-tokens", str(MAX_TOKENS))
    run(folder, "sample", "policy", "prompts.jsonl", *drawn, "-o", "samples.jsonl")
    run(folder, "score", "samples.jsonl", "-r", "rewards.yaml", "-o", "scored-samples.jsonl")
    run(folder, "eval", "scored-samples.jsonl", "--policy", "policy", "-o", "eval.json")
    run(folder, "plot", "eval.json", "-o", "plots")
    return Files(folder)


def test_rows_in_are_rows_out(files: Files) -> None:
    assert [len(files.rows(name)) for name in ("rows.jsonl", "examples.jsonl", "scored.jsonl")] == [100] * 3
    samples = len(NEW_THINGS) * 3
    assert [len(files.rows(name)) for name in ("samples.jsonl", "scored-samples.jsonl")] == [samples] * 2
    assert json.loads((files.policy / "policy.json").read_text())["training"]["rows"] == 100


def test_every_sample_ends_or_is_marked_as_cut(files: Files) -> None:
    for row in files.rows("samples.jsonl"):
        assert row["completion"].strip()
        assert "<|im_" not in row["completion"]
        assert row["finish"] == ("length" if row["tokens"] == MAX_TOKENS else "stop")


def test_scores_are_finite_numbers(files: Files) -> None:
    for name in ("scored.jsonl", "scored-samples.jsonl"):
        for row in files.rows(name):
            assert set(row["rewards"]) == {"short", "varied"}
            assert all(math.isfinite(reward) for reward in row["rewards"].values())
            assert row["rewards"]["short"] == len(row["completion"].split())


def test_eval_measures_all_samples_and_plot_writes_a_report(files: Files) -> None:
    evaluation = json.loads((files.folder / "eval.json").read_text())
    (measured,) = evaluation["policies"].values()
    assert (measured["samples"], measured["prompts"]) == (len(NEW_THINGS) * 3, len(NEW_THINGS))
    assert math.isfinite(measured["rewards"]["short"]["error"]["mean_absolute"]["value"])
    assert "short" in (files.folder / "plots" / "report.html").read_text()


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def server(files: Files) -> Iterator[str]:
    """Yield the address of `transformers serve` with the policy, as its own process."""
    for package in ("uvicorn", "fastapi"):
        pytest.importorskip(package, reason="transformers[serving] is not installed")
    port = free_port()
    start = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", start, "serve", str(files.policy), "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: process.poll() is not None or listens(port), 240)
            assert process.poll() is None, "transformers serve ended before it began"
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def test_the_merged_policy_is_served_and_sampled_with_its_targets(server: str, files: Files) -> None:
    served = ("--base-url", server, "--api", "chat", "--served-name", files.policy)
    drawn = ("-t", "short=0.9", "--limit", "2", "--max-tokens", "12")
    run(files.folder, "sample", "policy", "prompts.jsonl", *drawn, *served, "-o", "served.jsonl")
    rows = files.rows("served.jsonl")
    assert len(rows) == 2
    assert all(row["completion"].strip() and row["finish"] in ("stop", "length") for row in rows)
    policy, tokenizer = read_policy(files.policy), load_tokenizer(str(files.policy))
    assert all(row["asked"]["short"] == pytest.approx(policy.shown("short", 0.9)) for row in rows)
    encoder = PromptEncoder(tokenizer, policy.template, policy.names, turns=policy.turns)
    for requested in ({}, {"short": 0.9}):
        written = {name: policy.shown(name, number) for name, number in requested.items()}
        prompt = [{"role": "user", "content": rows[0]["prompt"]}]
        body = {"model": str(files.policy), "messages": prompt, "max_tokens": 2, "chat_template_kwargs": requested}
        used = answer(f"{server}/chat/completions", body)["usage"]["prompt_tokens"]
        assert used == len(encoder.prompt(prompt, written, 10**6).ids)
        assert ("short: " in encoder.text(prompt, written)) == bool(requested)


def answer(address: str, body: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.load(reply)
