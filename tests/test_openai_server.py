"""The host of the tests is one that OpenAI's own client takes for OpenAI."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from helpers import wait_until, write
from openai import OpenAI
from openai_routes import error
from openai_server import BASE, Fault, OpenAIServer, hosting

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def host() -> Iterator[OpenAIServer]:
    with hosting() as server:
        yield server


def client_of(url: str) -> OpenAI:
    return OpenAI(base_url=url, api_key="sk-test", max_retries=0, _strict_response_validation=True)


def rows(count: int = 12) -> Path:
    said = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}]
    return write(Path("train.jsonl"), [{"messages": said}] * count)


def trained(client: OpenAI, **more: Any) -> Any:
    file = client.files.create(file=rows(), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=BASE, training_file=file.id, metadata={"irlhf": "abc"}, **more)
    while job.status != "succeeded":
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job


def test_the_whole_life_of_a_job_reads_under_strict_validation(host: OpenAIServer) -> None:
    host.quirks.checkpoints = 2
    client = client_of(host.url)
    hyper: Any = {"n_epochs": 2, "batch_size": "auto"}
    job = trained(client, method={"type": "supervised", "supervised": {"hyperparameters": hyper}}, seed=3)
    assert job.fine_tuned_model == f"ft:{BASE}:org::{job.id}"
    assert [one.id for one in client.fine_tuning.jobs.list(metadata={"irlhf": "abc"})] == [job.id]
    assert not list(client.fine_tuning.jobs.list(metadata={"irlhf": "other"}))
    assert len(list(client.fine_tuning.jobs.list_events(job.id, limit=1))) == 3
    assert [one.step_number for one in client.fine_tuning.jobs.checkpoints.list(job.id)] == [2, 1]
    assert client.files.content(job.result_files[0]).text.startswith("step,train_loss")
    assert client.models.retrieve(BASE).shutdown_date is None
    assert job.fine_tuned_model in [one.id for one in client.models.list()]
    assert {one.filename for one in client.files.list()} == {"train.jsonl", "step_metrics.csv"}
    assert client.files.delete(job.training_file).deleted
    assert (len(host.jobs), host.charges) == (1, 1)


def test_a_cancelled_job_is_not_charged(host: OpenAIServer) -> None:
    client = client_of(host.url)
    file = client.files.create(file=rows(), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert client.fine_tuning.jobs.retrieve(job.id).status == "cancelled"
    assert (len(host.jobs), host.charges) == (1, 0)


def test_a_file_that_cannot_be_trained_on_fails_the_job(host: OpenAIServer) -> None:
    client = client_of(host.url)
    file = client.files.create(file=rows(3), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
    job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.status == "failed"
    assert job.error is not None
    assert "at least 10 examples" in str(job.error.message)


def test_what_the_client_does_not_know_is_refused(host: OpenAIServer) -> None:
    client = client_of(host.url)
    file = client.files.create(file=rows(), purpose="fine-tune")
    for wrong in ({"trainingType": "Standard"}, {"method": {"type": "magic"}}, {"hyperparameters": {"lora": True}}):
        with pytest.raises(openai.BadRequestError):
            client.fine_tuning.jobs.create(model=BASE, training_file=file.id, extra_body=wrong)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=BASE, messages=[{"role": "robot", "content": "x"}])  # type: ignore
    assert not host.jobs


def test_chat_answers_with_numbers(host: OpenAIServer) -> None:
    client = client_of(host.url)
    said: Any = [{"role": "user", "content": "one two three four five"}]
    asked = {"model": BASE, "messages": said, "n": 3, "logprobs": True, "top_logprobs": 5, "max_tokens": 9}
    answer = client.chat.completions.create(**asked, seed=1)  # type: ignore[call-overload]
    assert len(answer.choices) == 3
    first = answer.choices[0]
    assert "".join(one.token for one in first.logprobs.content) == first.message.content
    assert {len(one.top_logprobs) for one in first.logprobs.content} == {5}
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    host.quirks.plural = host.quirks.logprobs = False
    again = client.chat.completions.create(**asked, seed=1)  # type: ignore[call-overload]
    assert again.usage.prompt_tokens_details.cached_tokens > 0
    assert [one.logprobs for one in again.choices] == [None]
    assert client.chat.completions.create(model=BASE, messages=said, stop=["three"]).choices[0].message.content


def test_faults_come_in_order_and_may_come_after_the_deed(host: OpenAIServer) -> None:
    client = client_of(host.url)
    file = client.files.create(file=rows(), purpose="fine-tune")
    html, detail = Fault(200, b"<html>log in</html>"), Fault(422, {"detail": "no"})
    lost, gone = Fault(502, after=True), Fault(reset=True, after=True)
    spent = Fault(429, error(429, code="insufficient_quota"), {"retry-after": "7"})
    host.faults["jobs.create"] = [spent, None, lost, gone, Fault(reset=True), detail]
    for expected in (openai.RateLimitError, None, openai.InternalServerError, openai.APIConnectionError):
        try:
            client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
            assert expected is None
        except openai.APIError as told:
            assert type(told) is expected  # noqa: PT017
    with pytest.raises(openai.APIConnectionError):
        client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
    with pytest.raises(openai.UnprocessableEntityError):
        client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
    host.faults["jobs.retrieve"] = [html]
    with pytest.raises(Exception, match="Expecting value"):
        client.fine_tuning.jobs.retrieve("any")
    assert len(host.jobs) == 3


def test_a_list_that_never_ends_says_so_for_ever(host: OpenAIServer) -> None:
    host.quirks.endless = True
    client = client_of(host.url)
    trained(client)
    pages = client.fine_tuning.jobs.list(limit=1).iter_pages()
    assert all(next(pages).has_more for _ in range(5))


def test_it_runs_in_a_process_of_its_own() -> None:
    script = Path(__file__).with_name("openai_server.py")
    with subprocess.Popen([sys.executable, script, "address.txt"]) as process:
        try:
            wait_until(lambda: Path("address.txt").exists() and Path("address.txt").read_text())
            job = trained(client_of(Path("address.txt").read_text()))
        finally:
            process.kill()
    assert job.status == "succeeded"


def test_a_model_that_is_really_trained_speaks_from_its_own_logits() -> None:
    from openai_trainer import train

    words = ("red", "green", "blue")
    said = [
        [{"role": "user", "content": f"Say it\n\ncolour: {i % 3}"}, {"role": "assistant", "content": words[i % 3]}]
        for i in range(60)
    ]
    write(Path("train.jsonl"), [{"messages": one} for one in said])
    with hosting(lambda content: train(content, steps=60)) as host:
        client = client_of(host.url)
        file = client.files.create(file=Path("train.jsonl"), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
        while job.status != "succeeded":
            job = client.fine_tuning.jobs.retrieve(job.id)
        for number, word in enumerate(words):
            asked: Any = [{"role": "user", "content": f"Say it\n\ncolour: {number}"}]
            answer = client.chat.completions.create(
                model=str(job.fine_tuned_model), messages=asked, logprobs=True, top_logprobs=20, temperature=0
            )
            told = answer.choices[0].logprobs
            assert answer.choices[0].message.content.strip() == word
            assert told is not None
            assert all(one.logprob >= -1 and len(one.top_logprobs) == 20 for one in told.content or [])
