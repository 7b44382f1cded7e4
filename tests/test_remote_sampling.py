"""--base-url: a policy that a server holds. A real one on a real socket, with a real policy and scripted faults."""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import IRLHF, Bench, Outcome, begun, call, example, names, read, wait_until, write

from irlhf.cli.app import main
from irlhf.core.errors import DataError
from irlhf.executors.base import Engine, Work, run_pools
from irlhf.models.generation import generate
from irlhf.models.loading import load_causal
from irlhf.models.prompt_encoding import PromptEncoder
from irlhf.models.token_logprobs import logprobs
from irlhf.models.token_sampler import Decoding
from irlhf.policy.policy_file import FILE, read_policy

pytestmark = pytest.mark.timeout(60)

KEY = "sk-canary-7f3a9c"
Fault = Callable[["Handler"], None]


class Served(ThreadingHTTPServer):
    """A policy behind a socket. `faults` holds what becomes of the next requests for a completion."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, policy: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.tokenizer = load_causal(str(policy))
        self.model.eval()
        self.lock = threading.Lock()
        self.now = 0
        self.hurry = threading.Event()
        self.clear()

    def clear(self) -> None:
        """Answer what is waiting, and begin anew."""
        self.hurry.set()
        wait_until(lambda: not self.now)
        self.hurry.clear()
        self.faults: list[Fault | None] = []
        self.models = ["policy"]
        self.delay = 0.0
        self.change: Callable[[dict[str, Any]], Any] = dict
        self.asked: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.times: list[float] = []
        self.drawn: dict[int, tuple[list[int], tuple[int, ...]]] = {}  # prompt and completion of each seed
        self.most = 0

    def handle_error(self, *_: object) -> None:
        """Say nothing where a client has left."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def listed(self, logprobs: torch.Tensor, drawn: int, body: Mapping[str, Any]) -> dict[str, float]:
        """Return the likeliest tokens and the drawn one, as vLLM names them when asked for ids."""
        assert body["return_tokens_as_token_ids"]
        best = logprobs.topk(body["logprobs"]).indices.tolist()
        return {f"token_id:{token}": float(logprobs[token]) for token in dict.fromkeys([drawn, *best])}

    def completion(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer as OpenAI's legacy endpoint does."""
        assert isinstance(body["prompt"], list)
        how = Decoding(body["temperature"], body["top_p"], body["max_tokens"])
        with self.lock, torch.inference_mode():
            (one,) = generate(self.model, self.tokenizer, [body["prompt"]], [body["seed"]], how)
            read_ids = torch.tensor([body["prompt"] + list(one.ids)])
            told = self.model(read_ids).logits[0, len(body["prompt"]) - 1 : -1].float().log_softmax(-1)
            self.drawn[body["seed"]] = (body["prompt"], one.ids)
        numbers = told[range(len(one.ids)), list(one.ids)].tolist()
        text = self.tokenizer.decode(list(one.ids), skip_special_tokens=True)
        found = None
        if "logprobs" in body:
            listed = [self.listed(row, token, body) for row, token in zip(told, one.ids, strict=True)]
            found = {"tokens": [str(i) for i in one.ids], "token_logprobs": numbers, "top_logprobs": listed}
        choice = {"index": 0, "text": text, "logprobs": found, "finish_reason": one.finish}
        return {"object": "text_completion", "choices": [choice], "usage": {"completion_tokens": one.tokens}}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Served
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet an answer

    def do_GET(self) -> None:
        assert self.path == "/v1/models"
        self.say({"object": "list", "data": [{"id": name, "object": "model"} for name in self.server.models]})

    def do_POST(self) -> None:
        served = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with served.lock:
            served.asked.append(body)
            served.headers.append(dict(self.headers))
            served.times.append(time.monotonic())
            served.now += 1
            served.most = max(served.most, served.now)
            fault = served.faults.pop(0) if served.faults else None
        served.hurry.wait(served.delay)
        try:
            if self.path != "/v1/completions" or body["model"] not in served.models:
                self.say({"error": {"message": "no such model"}}, 404)
            elif fault:
                fault(self)
            else:
                self.say(served.change(served.completion(body)))
        finally:
            with served.lock:
                served.now -= 1

    def say(self, body: object, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        packed = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(packed)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(packed)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


def status(code: int, body: object = None, **headers: str) -> Fault:
    given = body or {"error": {"message": "not now", "type": "server_error"}}
    return lambda handler: handler.say(given, code, **headers)


def says(body: bytes, kind: str = "application/json") -> Fault:
    return lambda handler: handler.say(body, 200, kind)


def reset(handler: Handler) -> None:
    """Tear the connection down without a word."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True
    handler.wfile = handler.rfile = open(os.devnull, "r+b", buffering=0)  # noqa: SIM115


def torn(handler: Handler) -> None:
    """Promise more than comes."""
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"te')
    handler.wfile.flush()
    handler.close_connection = True


@pytest.fixture(scope="module")
def running(bench: Bench) -> Iterator[Served]:
    with Served(bench.policy) as served:
        threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
        yield served
        served.shutdown()


@pytest.fixture
def served(running: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running.clear()
    return running


def line(bench: Bench, served: Served, output: str, *more: object) -> list[object]:
    asked = ["-t", "short=0:1:0.5", "--split", "all", "--limit", "2", "--max-tokens", "16", "-q", "-o", output]
    return ["sample", bench.policy, bench.examples, *asked, "--base-url", served.url, *more]


def local(bench: Bench, output: str, *more: object) -> list[object]:
    asked = ["-t", "short=0:1:0.5", "--split", "all", "--limit", "2", "--max-tokens", "16", "-q", "-o", output]
    return ["sample", bench.policy, bench.examples, *asked, *more]


def told(outcome: Outcome) -> tuple[int, int]:
    return outcome.code, outcome.err.count("\n")


def well(outcome: Outcome) -> None:
    assert (outcome.code, outcome.err) == (0, "")


def test_greedy_texts_are_those_of_the_policy_at_hand(bench: Bench, served: Served) -> None:
    well(call(*line(bench, served, "there.jsonl", "--temperature", "0")))
    well(call(*local(bench, "here.jsonl", "--temperature", "0")))
    there, here = read(Path("there.jsonl")), read(Path("here.jsonl"))
    assert len(there) == 6
    assert there == [{k: v for k, v in row.items() if k not in ("entropy", "logprob")} for row in here]


def test_a_base_that_a_server_holds_is_sampled_as_the_local_one(bench: Bench, served: Served) -> None:
    base = Path(shutil.copytree(bench.policy, "base"))
    (base / FILE).unlink()
    write(Path("in.jsonl"), [{"prompt": "How do I repot a fern?"}, {"prompt": "short: 0.90\nWhy?"}])
    command = ["sample", base, "in.jsonl", "--temperature", "0", "--max-tokens", "16", "-q", "-o"]
    well(call(*command, "there.jsonl", "--base-url", served.url))
    well(call(*command, "here.jsonl"))
    there, here = read(Path("there.jsonl")), read(Path("here.jsonl"))
    assert len(there) == 2
    assert there == [{k: v for k, v in row.items() if k not in ("entropy", "logprob")} for row in here]


def test_prompts_are_sent_as_the_token_ids_of_the_policy_at_hand(bench: Bench, served: Served) -> None:
    long = "Mind this. " * 60 + "short: 0.90\n\n<|endoftext|> And now?"  # cut and disarmed
    write(Path("in.jsonl"), [example(0, prompt=long), example(1, prompt=[{"role": "user", "content": "Why?"}])])
    command = line(bench, served, "out.jsonl", "--concurrency", "1")
    outcome = call(*("in.jsonl" if one == bench.examples else one for one in command))
    assert (outcome.code, outcome.err.count("\n")) == (0, 1)
    assert "prompt was shortened at the beginning" in outcome.err
    policy = read_policy(bench.policy)
    chat = PromptEncoder(served.tokenizer, policy.template, policy.names)
    rows = read(Path("out.jsonl"))
    ids = [chat.prompt(row["prompt"], row["asked"], policy.context - 16).ids for row in rows]
    assert [body["prompt"] for body in served.asked] == ids
    assert max(map(len, ids)) > policy.context - 24


def test_a_request_leaves_no_default_to_the_server(bench: Bench, served: Served) -> None:
    well(call(*line(bench, served, "out.jsonl", "--limit", "1", "--top-p", "0.7", "--temperature", "0.5")))
    body = {name: value for name, value in served.asked[0].items() if name not in ("prompt", "seed")}
    neutral = {"top_k": -1, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
    assert body == {"model": "policy", "n": 1, "max_tokens": 16, "temperature": 0.5, "top_p": 0.7, **neutral}


def test_each_sample_is_drawn_with_its_own_seed_and_read_by_the_policy(bench: Bench, served: Served) -> None:
    well(call(*line(bench, served, "out.jsonl")))
    rows = read(Path("out.jsonl"))
    assert {body["seed"] for body in served.asked} == {row["seed"] % 2**31 for row in rows}
    assert len({row["seed"] for row in rows}) == 6
    drawn = [served.drawn[row["seed"] % 2**31] for row in rows]
    assert [row["logprob"] for row in rows] == pytest.approx(
        [sum(each) for each in logprobs(served.model, drawn)], abs=1e-3
    )
    assert [row["tokens"] for row in rows] == [len(ids) for _, ids in drawn]
    assert not any("entropy" in row or "censored" in row for row in rows)


@pytest.mark.parametrize("more", [("--temperature", "0.5"), ("--top-p", "0.9")])
def test_logprobs_of_another_distribution_are_not_taken_for_the_policys(
    more: tuple[str, ...], bench: Bench, served: Served
) -> None:
    well(call(*line(bench, served, "out.jsonl", *more)))
    assert not any("logprob" in row for row in read(Path("out.jsonl")))


def test_no_more_requests_than_asked_for_are_under_way_and_the_rows_are_the_same(bench: Bench, served: Served) -> None:
    served.delay = 0.03
    well(call(*line(bench, served, "one.jsonl", "--concurrency", "1")))
    assert served.most == 1
    served.most = 0
    well(call(*line(bench, served, "three.jsonl", "--concurrency", "3")))
    assert served.most == 3
    assert Path("three.jsonl").read_bytes() == Path("one.jsonl").read_bytes()
    assert Path("three.jsonl.run.json").read_bytes() == Path("one.jsonl.run.json").read_bytes()


def forked(arguments: list[object]) -> int:
    """Run the program in a fork of this process, in which all is loaded."""
    child = os.fork()
    if not child:
        sys.argv = ["irlhf", *map(str, arguments)]
        try:
            main()
        finally:
            os._exit(1)
    return child


def test_a_killed_run_asks_only_for_the_rest(bench: Bench, served: Served) -> None:
    well(call(*line(bench, served, "one.jsonl", "--limit", "12")))
    served.clear()
    served.delay = 0.1
    again = line(bench, served, "two.jsonl", "--limit", "12", "--concurrency", "2")
    partial = Path("two.jsonl.partial")
    child = forked(again)
    wait_until(lambda: begun(Path("two.jsonl")) and partial.read_bytes().count(b"\n") >= 5)
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    kept = read(partial)
    served.clear()
    well(call(*again))
    assert len(kept) + len(served.asked) == 36
    assert {row["seed"] % 2**31 for row in kept}.isdisjoint(body["seed"] for body in served.asked)
    assert Path("two.jsonl").read_bytes() == Path("one.jsonl").read_bytes()


@pytest.mark.slow  # a whole process
def test_ctrl_c_waits_for_no_answer(bench: Bench, served: Served) -> None:
    served.delay = 30
    command = [*IRLHF, *map(str, line(bench, served, "out.jsonl"))]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as child:
        wait_until(lambda: child.poll() is not None or served.asked)
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=20)
    assert (child.returncode, err) == (130, b"irlhf: stopped; the same command resumes\n")
    assert time.monotonic() - began < 10


SOON = {"retry_after_ms": "1"}
EMPTY = b'{"choices": [], "usage": {"completion_tokens": 0}}'
CUT = b'{"choices": [{"text": "a", "finish_reason": "content_filter"}]}'


@pytest.mark.parametrize(
    ("fault", "tries", "end"),
    [
        (status(429, **SOON), 6, (3, "429 (not now), in 6 tries; the same command resumes")),
        (status(429, retry_after="601"), 1, (3, "429 (not now); come back in 10 min: the same command resumes")),
        (status(500, {"detail": "out of\nmemory"}, **SOON), 6, (3, "500 (out of memory), in 6 tries; the same")),
        (status(503, b"<html>busy</html>", **SOON), 6, (3, "503 (<html>busy</html>), in 6 tries; the same")),
        (status(401), 1, (2, "401 (not now); put a key for this server into OPENAI_API_KEY")),
        (status(400, {"message": "prompt: a text"}), 1, (2, "400 (prompt: a text); if http")),
        (status(422, {"detail": [{"loc": ["top_k"]}]}), 1, (2, "422 ([{'loc': ['top_k']}]); if http")),
        (says(EMPTY), 1, (3, "(choices: list should have at least 1 item after validation, not 0)")),
        (says(CUT), 1, (3, "a completion ended with 'content_filter'")),
    ],
)
def test_a_fault_is_one_line_and_the_same_command_goes_on(
    fault: Fault, tries: int, end: tuple[int, str], bench: Bench, served: Served
) -> None:
    command = line(bench, served, "out.jsonl", "--concurrency", "1")
    served.faults = [None, None, None, *[fault] * tries]
    outcome = call(*command)
    assert told(outcome) == (end[0], 1), outcome.err
    assert outcome.err.startswith(f"irlhf: {served.url}")
    assert end[1] in outcome.err
    kept = read(Path("out.jsonl.partial"))
    assert (len(kept), len({body["seed"] for body in served.asked[:4]})) == (3, 4)
    served.clear()
    well(call(*command))
    assert len({row["id"] for row in read(Path("out.jsonl"))}) == 6
    assert read(Path("out.jsonl"))[:3] == kept


def test_what_passes_is_tried_again(bench: Bench, served: Served) -> None:
    well(call(*line(bench, served, "one.jsonl", "--concurrency", "1")))
    served.clear()
    served.faults = [status(429, retry_after="1"), None, status(500, **SOON), None, reset, None, torn]
    well(call(*line(bench, served, "two.jsonl", "--concurrency", "1")))
    assert served.times[1] - served.times[0] > 0.99
    assert len(served.asked) == 10
    assert Path("two.jsonl").read_bytes() == Path("one.jsonl").read_bytes()


@pytest.mark.parametrize(
    "fault",
    [
        says(b'{"choices": [{"te'),
        says(b"<html>Log in</html>", "text/html"),
        says(b'{"error": {"message": "oops"}}'),
        says(b""),
    ],
)
def test_a_reply_that_is_not_of_the_protocol_is_requested_again(fault: Fault, bench: Bench, served: Served) -> None:
    served.faults = [fault]
    well(call(*line(bench, served, "out.jsonl", "--concurrency", "1")))
    assert (len(read(Path("out.jsonl"))), len(served.asked)) == (6, 7)


@pytest.mark.slow  # five tries, with their waits
def test_a_server_that_is_not_there_is_one_line(bench: Bench, served: Served) -> None:
    with socket.socket() as taken:  # and does not listen
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        outcome = call(*local(bench, "out.jsonl", "--base-url", url))
    assert told(outcome) == (3, 1)
    assert outcome.err.startswith(f"irlhf: {url}/models: no reply in 6 tries (")
    assert "Connection refused" in outcome.err
    assert names(Path.cwd()) == set()


def chosen(answer: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**answer, "choices": [{**answer["choices"][0], **changes}]}


def logprobs_like(change: Callable[[list[float]], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def changed(answer: dict[str, Any]) -> dict[str, Any]:
        told = answer["choices"][0]["logprobs"]
        return chosen(answer, logprobs={**told, **change(told["token_logprobs"])})

    return changed


def as_llama_cpp(answer: dict[str, Any]) -> dict[str, Any]:
    told = answer["choices"][0]["logprobs"]
    content = [
        {"token": "a", "logprob": number, "top_logprobs": [{"token": "a", "logprob": one} for one in top.values()]}
        for number, top in zip(told["token_logprobs"], told["top_logprobs"], strict=True)
    ]
    return chosen(answer, logprobs={"content": content})


BOUNDS = {"entropy_low", "entropy_high"}


@pytest.mark.parametrize(
    ("change", "missing", "warning"),
    [
        (lambda answer: chosen(answer, logprobs=None), {"logprob", *BOUNDS}, "the logprob of every token"),
        (logprobs_like(lambda numbers: {"token_logprobs": numbers[1:]}), {"logprob", *BOUNDS}, "the logprob of"),
        (logprobs_like(lambda _: {"top_logprobs": None}), BOUNDS, "list the likeliest"),
        (logprobs_like(lambda numbers: {"top_logprobs": [None] * len(numbers)}), BOUNDS, "list the likeliest"),
        (as_llama_cpp, set(), ""),
        (lambda answer: {"choices": answer["choices"]}, set(), ""),
        (
            lambda answer: {"choices": chosen(answer, logprobs=None)["choices"], "usage": None},
            {"tokens", "logprob", *BOUNDS},
            "the logprob of every token",
        ),
    ],
)
def test_what_a_server_does_not_tell_is_not_in_the_row(
    change: Callable[[dict[str, Any]], Any], missing: set[str], warning: str, bench: Bench, served: Served
) -> None:
    call(*line(bench, served, "whole.jsonl"))
    served.change = change
    outcome = call(*line(bench, served, "less.jsonl"))
    assert told(outcome) == (0, 1 if missing else 0)
    assert outcome.err.startswith("warning: the server did not " if missing else "")
    assert warning in outcome.err
    whole = [{k: v for k, v in row.items() if k not in missing} for row in read(Path("whole.jsonl"))]
    assert read(Path("less.jsonl")) == whole


@pytest.mark.parametrize("nothing", [-9999.0, None, float("-inf")])
def test_a_token_without_its_logprob_is_counted(nothing: float | None, bench: Bench, served: Served) -> None:
    call(*line(bench, served, "whole.jsonl"))
    served.change = logprobs_like(lambda numbers: {"token_logprobs": [nothing, *numbers[1:]]})
    outcome = call(*line(bench, served, "less.jsonl"))
    assert told(outcome) == (0, 1)
    whole = [{k: v for k, v in row.items() if k != "logprob"} for row in read(Path("whole.jsonl"))]
    assert read(Path("less.jsonl")) == [{**row, "censored": 1} for row in whole]


def test_what_a_server_lists_bounds_the_entropy_of_the_policy_at_hand(bench: Bench, served: Served) -> None:
    well(call(*line(bench, served, "there.jsonl")))
    rows = read(Path("there.jsonl"))
    for row in rows:
        prompt, ids = served.drawn[row["seed"] % 2**31]
        with torch.inference_mode():
            logits = served.model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
        shares = logits.double().log_softmax(-1)
        exact = float(-(shares.exp() * shares).sum(-1).mean())
        assert row["entropy_low"] <= exact <= row["entropy_high"] < row["entropy_low"] + 5


def refuses_above(most: int) -> Fault:
    def answer(handler: Handler) -> None:
        body = handler.server.asked[-1]
        told = f"Requested sample logprobs of {body['logprobs']}, which is greater than max allowed: {most}"
        if body["logprobs"] > most:
            handler.say({"error": {"message": told}}, 400)
        else:
            handler.say(handler.server.completion(body))

    return answer


@pytest.mark.parametrize(("most", "tried"), [(5, [20, 5]), (1, [20, 5, 1])])
def test_a_server_that_refuses_so_many_is_asked_for_fewer(
    most: int, tried: list[int], bench: Bench, served: Served
) -> None:
    well(call(*line(bench, served, "whole.jsonl", "--concurrency", "1")))
    served.clear()
    served.faults = [refuses_above(most)] * 20
    outcome = call(*line(bench, served, "less.jsonl", "--concurrency", "1"))
    assert told(outcome) == (0, 1)
    assert f"the server lists at most {most} of the likeliest tokens" in outcome.err
    assert [body["logprobs"] for body in served.asked] == [*tried, *[most] * 5]
    pairs = zip(read(Path("less.jsonl")), read(Path("whole.jsonl")), strict=True)
    for less, whole in pairs:
        assert less["entropy_low"] < whole["entropy_low"] < whole["entropy_high"] < less["entropy_high"]
        assert less["logprob"] == whole["logprob"]


def test_a_server_whose_context_is_too_short_is_told_of_once(bench: Bench, served: Served) -> None:
    def cut(answer: dict[str, Any]) -> dict[str, Any]:
        less = {name: each[:3] for name, each in answer["choices"][0]["logprobs"].items()}
        less = chosen(answer, logprobs=less, finish_reason="length")
        return {**less, "usage": {"completion_tokens": 3}}

    served.change = cut
    outcome = call(*line(bench, served, "out.jsonl"))
    assert told(outcome) == (0, 1)
    assert "the server ended completions before 16 tokens: its context is too short" in outcome.err
    assert {row["finish"] for row in read(Path("out.jsonl"))} == {"length"}


def test_an_evaluation_says_what_is_not_available(bench: Bench, served: Served) -> None:
    well(call(*line(bench, served, "out.jsonl", "--limit", "12")))
    Path("short.yaml").write_text("rewards: {short: {scorer: length, direction: lower}}")
    well(call("score", "out.jsonl", "-r", "short.yaml", "-o", "scored.jsonl", "-q"))
    assert call("eval", "scored.jsonl", "--policy", bench.policy, "-o", "eval.json", "-q").code == 0
    (found,) = json.loads(Path("eval.json").read_text())["policies"].values()
    assert (found["entropy"], found["kl"]) == ("not available", "not available")
    assert found["length"]["tokens"]["value"] > 0


@pytest.mark.parametrize(
    ("models", "more", "reason"),
    [
        (["policy", "base"], [], "has the models base, policy; name one with --served-name"),
        ([], [], "lists no models; name one with --served-name"),
        (["policy"], ["--served-name", "polciy"], "has no model 'polciy'; did you mean 'policy'?"),
        (["policy", "base"], ["--served-name", "x"], "has no model 'x' (available: base, policy)"),
    ],
)
def test_a_model_that_is_not_there_is_named_beside_those_that_are(
    models: list[str], more: list[str], reason: str, bench: Bench, served: Served
) -> None:
    served.models = models
    outcome = call(*line(bench, served, "out.jsonl", *more))
    assert told(outcome) == (2, 1)
    assert reason in outcome.err
    assert names(Path.cwd()) == set()


def test_another_server_is_refused_by_name(bench: Bench, served: Served) -> None:
    well(call(*line(bench, served, "out.jsonl")))
    outcome = call(*line(bench, served, "out.jsonl", "--served-name", "policy", "--base-url", "http://127.0.0.1:9/v1"))
    assert told(outcome) == (2, 1)
    assert f"base_url was {served.url} and is http://127.0.0.1:9/v1" in outcome.err
    assert "served_name was not set and is policy" in outcome.err
    served.clear()
    assert call(*line(bench, served, "out.jsonl", "--concurrency", "3", "--api-key-env", "MINE")).code == 0
    assert served.asked == []


SERVER = ["--base-url", "http://127.0.0.1:9/v1"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ([*SERVER, "--guidance", "2"], "--guidance needs the logits of two prompts"),
        ([*SERVER, "--reference", "POLICY"], "--reference needs token ids"),
        ([*SERVER, "--executor", "ray"], "--executor ray does not apply to a server"),
        (["--served-name", "a"], "--served-name is for --base-url only"),
        (["--concurrency", "3"], "--concurrency is for --base-url only"),
        (["--api-key-env", "A"], "--api-key-env is for --base-url only"),
        (["--base-url", "127.0.0.1:9/v1"], "--base-url needs an address like http://127.0.0.1:8000/v1"),
        (["--base-url", "http://127.0.0.1:99999/v1"], "--base-url needs an address"),
        (["--base-url", f"http://me:{KEY}@127.0.0.1:9/v1"], "--base-url needs an address"),
        (["--base-url", f"http://127.0.0.1:9/v1?key={KEY}"], "--base-url needs an address"),
        ([*SERVER, "--api-key-env", "NOBODYS_KEY"], "environment variable NOBODYS_KEY for its key is not set"),
        ([*SERVER, "--max-tokens", "500"], "--max-tokens 500 leaves no room in a context of 128 tokens"),
    ],
)
def test_what_a_server_cannot_do_is_refused(more: list[str], reason: str, bench: Bench) -> None:
    places = {"POLICY": str(bench.policy)}
    outcome = call(*local(bench, "out.jsonl", *(places.get(one, one) for one in more)))
    assert told(outcome) == (2, 1), outcome.err
    assert reason in outcome.err
    assert KEY not in outcome.err
    assert names(Path.cwd()) == set()


def echo(handler: Handler) -> None:
    handler.say({"error": {"message": f"wrong key: {handler.headers['authorization']}"}}, 401)


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "MY_SERVERS_KEY"])
def test_a_key_is_sent_and_stands_nowhere(
    variable: str,
    bench: Bench,
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv(variable, KEY + "\n")
    own = [] if variable == "OPENAI_API_KEY" else ["--api-key-env", variable]
    served.faults = [None, echo]
    outcome = call(*line(bench, served, "out.jsonl", "--concurrency", "1", *own))
    assert told(outcome) == (2, 1)
    assert f"401 (wrong key: Bearer …); put a key for this server into {variable}" in outcome.err
    outcome = call(*line(bench, served, "out.jsonl", *own, "--json"))
    assert outcome.code == 0
    assert {sent["authorization"] for sent in served.headers} == {f"Bearer {KEY}"}
    written = [path.read_text() for path in Path.cwd().iterdir()]
    assert "HTTP" in caplog.text
    assert not [text for text in [outcome.out, outcome.err, caplog.text, *written] if KEY in text]


MINE = """
import time

class Waits:
    def __call__(self, pool, advance):
        if pool[0] == "bad":
            raise ValueError("bad")
        time.sleep(0.02 if pool[0] == 0 else 0)
        return [one * 2 for one in pool]
"""


def in_threads(pools: Iterator[list[Any]], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[Any], Any]]:
    Path("waits.py").write_text(MINE)
    monkeypatch.syspath_prepend(Path.cwd())
    return run_pools(pools, Work("waits:Waits", ()), Engine("threads", 3), lambda rows: None)


def test_answers_come_in_the_order_of_the_rows_and_no_more_is_read_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100))
    found = in_threads(([i] for i in numbers), monkeypatch)
    assert next(found) == ([0], [0])
    assert next(numbers) == 12  # four pools a thread were read
    assert [pool for pool, _ in found] == [[i] for i in range(1, 100) if i != 12]


def test_an_error_waits_until_the_rows_before_it_are_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> Iterator[list[Any]]:
        yield from ([0], [1])
        raise DataError("in.jsonl:3: no 'prompt'")

    found = in_threads(rows(), monkeypatch)
    assert [next(found), next(found)] == [([0], [0]), ([1], [2])]
    with pytest.raises(DataError, match=r"in\.jsonl:3"):
        next(found)
    bad = in_threads(iter([[0], ["bad"], [1]]), monkeypatch)
    assert next(bad) == ([0], [0])
    with pytest.raises(ValueError, match="bad"):
        next(bad)
