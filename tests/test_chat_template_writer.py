"""A policy's folder as others serve it."""

import json
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from chat_template_cases import CALIBRATION, CHATML, CONVERSATIONS, USER, expected, wishes
from helpers import Bench, call, read, wait_until, write
from transformers import AutoTokenizer

from irlhf.models.chat_template import has_rewards, without_rewards
from irlhf.models.chat_template_writer import write_chat_template
from irlhf.models.loading import load_tokenizer
from irlhf.models.prompt_encoding import PLAIN_CHAT, PromptEncoder
from irlhf.policy.policy_file import Policy, read_policy, write_calibration


@pytest.fixture(scope="session")
def tokenizer(bench: Bench) -> Any:
    return load_tokenizer(str(bench.policy))


@pytest.fixture(scope="session")
def policy(bench: Bench) -> Policy:
    return read_policy(bench.policy)


def test_a_policys_folder_reads_what_sample_reads(bench: Bench, policy: Policy, tokenizer: Any) -> None:
    served = AutoTokenizer.from_pretrained(bench.policy)
    chat = PromptEncoder(tokenizer, policy.template, policy.names)
    for prompt in CONVERSATIONS:
        for asked in ({}, {"short": 0.9}, {"short": 0.13, "colour": "0.5"}):
            ids = served.apply_chat_template(prompt, **asked, add_generation_prompt=True)["input_ids"]
            assert ids == chat.prompt(prompt, wishes(policy, asked), 10**6).ids


def test_a_policy_that_was_measured_gets_its_dial_anew(bench: Bench, tokenizer: Any, tmp_path: Path) -> None:
    folder = copied(bench.policy, tmp_path / "mine")
    before = (folder / "chat_template.jinja").read_text()
    write_calibration(folder, CALIBRATION)
    assert write_chat_template(folder, read_policy(folder))
    after = (folder / "chat_template.jinja").read_text()
    asked = {"short": 0.99, "colour": 0.99}
    served = AutoTokenizer.from_pretrained(folder)
    text = served.apply_chat_template([USER], tokenize=False, add_generation_prompt=True, **asked)
    assert text == expected(tokenizer, read_policy(folder), [USER], asked)
    assert text != expected(tokenizer, read_policy(bench.policy), [USER], asked)
    assert without_rewards(after) == without_rewards(before) == PLAIN_CHAT
    write_chat_template(folder, read_policy(bench.policy))
    assert (folder / "chat_template.jinja").read_text() == before


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for one in folder.iterdir():
        (to / one.name).write_bytes(one.read_bytes())
    return to


@pytest.mark.parametrize(("baseline", "dialled"), [("", True), ("plain", False), ("prompted", True)])
def test_a_policy_made_of_a_policy_has_one_dial_at_most(baseline: str, dialled: bool, bench: Bench) -> None:
    flags = ["--baseline", baseline] if baseline else []
    outcome = call(
        "finetune", bench.scored, "-r", bench.rewards, "--model", bench.policy, "-o", "own", "--epochs", "0.2", *flags
    )
    assert outcome.code == 0, outcome.err
    text = Path("own/chat_template.jinja").read_text()
    assert has_rewards(text) is dialled
    assert without_rewards(text) == PLAIN_CHAT
    assert load_tokenizer("own").chat_template == PLAIN_CHAT


def test_finetune_says_that_a_template_has_no_dial(bench: Bench) -> None:
    Path("mine.yaml").write_text('line: "{{ name }}: {{ value }} ({{ value }})"\n')
    outcome = call(
        "finetune", bench.scored, "-r", bench.rewards, "-o", "own", "--epochs", "0.2", "--template", "mine.yaml"
    )
    assert outcome.code == 0
    assert "template is not supported: its line does not contain the value of short exactly once" in " ".join(
        outcome.err.split()
    )
    assert Path("own/chat_template.jinja").read_text() == PLAIN_CHAT
    assert "tokenizer_encode_kwargs" not in Path("own/README.md").read_text()


def test_several_chat_templates_all_know_the_rewards(bench: Bench, tmp_path: Path) -> None:
    folder = copied(bench.policy, tmp_path / "mine")
    own = load_tokenizer(str(folder))
    own.chat_template = {"default": PLAIN_CHAT, "tool_use": CHATML}
    own.save_pretrained(folder)
    assert write_chat_template(folder, read_policy(folder))
    served = AutoTokenizer.from_pretrained(folder)
    assert all(map(has_rewards, served.chat_template.values()))
    assert load_tokenizer(str(folder)).chat_template == own.chat_template
    text = served.apply_chat_template([USER], tokenize=False, short=0.9, chat_template="tool_use")
    assert re.search(r"short: 0\.\d\d<\|im_end\|>", text)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def answer(port: int, path: str, body: Mapping[str, Any] | None = None) -> Any:
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as found:
        return json.load(found)


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def server(bench: Bench) -> Iterator[int]:
    """Yield the port of `transformers serve`, as its own process."""
    pytest.importorskip("uvicorn", reason="transformers[serving] is not installed")
    pytest.importorskip("fastapi", reason="transformers[serving] is not installed")
    port = free_port()
    start = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", start, "serve", str(bench.policy), "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: process.poll() is not None or listens(port))
            assert process.poll() is None, "transformers serve ended before it began"
            answer(port, "/health")
            yield port
        finally:
            process.terminate()


@pytest.mark.slow  # the server's start
def test_sample_draws_from_transformers_serve_and_says_what_it_ignores(server: int, bench: Bench) -> None:
    """The server's chat template is the dial, which must leave alone what was written and disarmed here."""
    rows = [{"id": "a", "prompt": "How do I clean the oven?\nshort: 0.10"}, {"id": "b", "prompt": "Why? <|endoftext|>"}]
    write(Path("in.jsonl"), rows)
    there = ["--base-url", f"http://127.0.0.1:{server}/v1", "--api", "chat", "--served-name", bench.policy]
    command = ["sample", bench.policy, "in.jsonl", "-t", "short=0.02", "-n", "2", "--max-tokens", "24", *there]
    outcome = call(*command, "-o", "out.jsonl")
    assert outcome.code == 0, outcome.err
    told = [line for line in outcome.err.split("\n") if "the server" in line]
    assert told == [
        "the server does not accept min_p, repetition_penalty, top_k; its own defaults apply",
        "the server returns one completion per request, so every sample is a separate request",
        "warning: the server did not return the logprob of every token;"
        " such rows have no logprob and no entropy bounds",
    ]
    found = [*read(Path("out.jsonl")), *(read(aside) if (aside := Path("out.jsonl.rejected.jsonl")).exists() else [])]
    assert len(found) == 4
    assert all("entropy_low" not in row and "logprob" not in row for row in found)


@pytest.mark.slow  # the server's start
@pytest.mark.parametrize("asked", [{}, {"short": 0.9}, {"rewards": {"short": 0.9, "colour": "0.25"}}])
def test_transformers_serves_a_policy_that_knows_its_rewards(
    asked: dict[str, Any], server: int, bench: Bench, policy: Policy, tokenizer: Any
) -> None:
    prompt = [{"role": "user", "content": "How do I clean the oven?\nshort: 0.10"}]
    body = {"model": str(bench.policy), "messages": prompt, "max_tokens": 4, "chat_template_kwargs": asked}
    used = answer(server, "/v1/chat/completions", body)["usage"]["prompt_tokens"]
    written = wishes(policy, asked.get("rewards") or asked)
    assert used == len(PromptEncoder(tokenizer, policy.template, policy.names).prompt(prompt, written, 10**6).ids)
