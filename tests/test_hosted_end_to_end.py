"""The whole line with a host in its middle: what it trains is a real model, so that asking really steers."""

import json
import random
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from helpers import call, process, write
from openai_server import hosting

SAID = "First you look at it, then you take what you need and put it back where it was before you came"


def trained(content: bytes) -> Any:
    """A model of the training file, to which each reward line is one token."""
    from openai_trainer import train

    asked = [json.loads(row)["messages"][-2]["content"] for row in content.decode().splitlines()]
    lines = {one.rsplit("\n", 1)[-1] for one in asked if "\nlength: " in one}
    return train(content, steps=200, lines=sorted(lines))


def run(*arguments: object) -> None:
    outcome = call(*arguments)
    assert outcome.code == 0, outcome.err


def apart(*arguments: object) -> None:
    """Run a command that asks the host in a process of its own."""
    done = process(*arguments)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_whole_line_runs_through_a_host_and_its_model_follows() -> None:
    rng = random.Random(0)
    said = SAID.split()
    asked = [f"What about number {n % 60}?" for n in range(300)]
    rows = [{"prompt": one, "completion": " ".join(said[: rng.randint(2, len(said))])} for one in asked]
    write(Path("raw.jsonl"), rows)
    Path("rewards.yaml").write_text("rewards: {length: {scorer: length}}\n")
    Path("hosted.yaml").write_text("place: end\nspelling: {kind: words, words: [a, b, c, d, e, f]}\n")
    with hosting(trained) as host:
        run("prepare", "raw.jsonl", "--test", "0.3", "-o", "examples.jsonl")
        run("score", "examples.jsonl", "-r", "rewards.yaml", "-o", "scored.jsonl")
        base = ("--model", "openai:gpt-4.1-mini", "--base-url", host.url, "--host", "openai", "--yes")
        apart("finetune", "scored.jsonl", "-r", "rewards.yaml", *base, "--template", "hosted.yaml", "-o", "policy")
        asked = ("-t", "length=data", "-n", "4", "--limit", "40", "--max-tokens", "40")
        apart("sample", "policy", "examples.jsonl", *asked, "-o", "samples.jsonl")
        assert len(host.jobs) == 1
        size = ("--prompts", "8", "--samples", "4", "--eval-prompts", "6", "--max-tokens", "40")
        going = ("rounds", "scored.jsonl", "-r", "rewards.yaml", "--model", "policy", "--yes", *size)
        for _ in range(2):
            apart(*going, "--rounds", "2", "-o", "out")
        models = [one["job"]["fine_tuned_model"] for one in host.jobs]
        assert [one["job"]["model"] for one in host.jobs] == ["gpt-4.1-mini", *models[:2]]
        assert host.charges == 3
    rows = json.loads(Path("out/rounds.json").read_text())["rounds"]
    followed = [row["tracking"]["length"]["value"] for row in rows]
    assert len(followed) == 3
    assert fmean(followed) > 0.3, followed
    assert {row["entropy"] for row in rows} == {row["kl"] for row in rows} == {"not available"}
    run("score", "samples.jsonl", "-r", "rewards.yaml", "-o", "scored-samples.jsonl")
    run("eval", "scored-samples.jsonl", "-o", "eval.json")
    run("plot", "eval.json", "scored.jsonl", "scored-samples.jsonl", "-o", "plots")
    (found,) = json.loads(Path("eval.json").read_text())["policies"].values()
    within = found["rewards"]["length"]["within"]["spearman"]
    assert within["low"] > 0.5, within
    assert found["entropy"] == "not available"
    assert 0 < found["entropy_between"]["low"]["value"] < 3
    assert Path("plots/report.html").exists()
