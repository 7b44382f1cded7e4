"""sample --reference: what was drawn is read by another model that is asked for nothing."""

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import IRLHF, Bench, Row, begun, call, read, slow_after, wait_until, write

from irlhf.models import token_logprobs
from irlhf.models.generation import generate
from irlhf.models.loading import load_causal
from irlhf.models.prompt_encoding import PromptEncoder
from irlhf.models.token_logprobs import logprobs
from irlhf.models.token_sampler import Decoding
from irlhf.policy.policy_file import FILE, read_policy
from irlhf.policy.templates import PLAIN, find_template
from irlhf.sampling.sample import sample
from irlhf.sampling.settings import SampleSettings


def sampled(bench: Bench, reference: object, target: tuple[str, ...] = ("short=0.9",), **more: Any) -> list[Row]:
    settings: dict[str, Any] = {"split": "all", "limit": 12, "max_tokens": 24, **more}
    sample(bench.policy, bench.examples, "s.jsonl", SampleSettings(target, reference=str(reference), **settings))
    return read(Path("s.jsonl"))


def slowly(model: Any, prompt: list[int], tokens: tuple[int, ...]) -> float:
    """Return a completion's logprob the slow way: no batch, one forward pass a token."""
    total, ids = 0.0, list(prompt)
    for token in tokens:
        with torch.inference_mode():
            total += float(model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)[token])
        ids.append(token)
    return total


@pytest.fixture
def base(bench: Bench, tmp_path: Path) -> Path:
    """The policy's folder as a bare base: no card, and weights that are not the policy's."""
    folder = Path(shutil.copytree(bench.policy, tmp_path / "base"))
    (folder / FILE).unlink()
    model, _ = load_causal(str(folder))
    with torch.no_grad():
        model.lm_head.weight.mul_(3)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("small", [1, 3000, 2**27])
def test_a_batch_reads_what_one_pass_a_token_reads(small: int, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_logprobs, "_LOGITS", small)
    model, tokenizer = load_causal(str(bench.policy))
    prompts = [tokenizer(text)["input_ids"] for text in ("Human: Why?", "Human: How do I mend a lamp?\n\n", "A", "B")]
    drawn = generate(model.eval(), tokenizer, prompts, range(4), Decoding(max_tokens=30))
    whole = [(prompt, one.ids) for prompt, one in zip(prompts, drawn, strict=True)]
    for numbers, one in zip(logprobs(model, whole), drawn, strict=True):
        assert numbers == pytest.approx(one.logprobs, abs=1e-3)
        assert sum(numbers) == pytest.approx(one.logprob, abs=1e-3)
    uneven = [(prompt, ids[: 1 + 9 * n]) for n, (prompt, ids) in enumerate(whole)]
    assert [sum(each) for each in logprobs(model, uneven)] == pytest.approx(
        [slowly(model, *row) for row in uneven], abs=1e-3
    )


def test_a_model_that_returns_every_place_is_read_alike(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = load_causal(str(bench.policy))
    rows = [([5, 6, 7], (8, 9)), ([5], (6, 7, 8))]
    spare = logprobs(model, rows)
    forward = model.forward

    def old(input_ids: Any, attention_mask: Any, use_cache: bool) -> Any:
        return forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)

    monkeypatch.setattr(model, "forward", old)
    assert logprobs(model, rows) == [pytest.approx(each, abs=1e-4) for each in spare]


def test_the_ids_are_the_drawn_tokens_with_the_end_of_the_turn(bench: Bench) -> None:
    model, tokenizer = load_causal(str(bench.policy))
    prompt = tokenizer("Human: How?\n\nAssistant:")["input_ids"]
    drawn = generate(model.eval(), tokenizer, [prompt] * 40, range(40), Decoding(max_tokens=40))
    assert {one.finish for one in drawn} == {"stop", "length"}
    for one in drawn:
        assert len(one.ids) == one.tokens
        assert (tokenizer.eos_token_id in one.ids) == (one.finish == "stop") == (one.ids[-1] == tokenizer.eos_token_id)
        assert tokenizer.decode(one.ids, skip_special_tokens=True).strip() == one.text


def test_a_policy_asked_for_nothing_is_its_own_reference(bench: Bench) -> None:
    rows = sampled(bench, bench.policy, target=())
    assert [row["reference"] for row in rows] == pytest.approx([row["logprob"] for row in rows], abs=1e-3)
    assert {row["k3"] for row in rows} == {0}


@pytest.mark.parametrize("asked", [("short=0.9",), ()])
def test_reading_changes_nothing_else(asked: tuple[str, ...], bench: Bench) -> None:
    read_too = sampled(bench, bench.policy, asked)
    settings = SampleSettings(asked, split="all", limit=12, max_tokens=24)
    sample(bench.policy, bench.examples, "alone.jsonl", settings)
    assert [{name: row[name] for name in row if name not in ("reference", "k3")} for row in read_too] == read(
        Path("alone.jsonl")
    )


@pytest.mark.parametrize("kind", slow_after(1, ["another policy", "itself", "base"]))
def test_the_reference_reads_behind_its_own_prompt_without_rewards(kind: str, bench: Bench, base: Path) -> None:
    policy = read_policy(bench.policy)
    folder = bench.policy if kind == "itself" else base
    if kind == "another policy":
        shutil.copy(bench.policy / FILE, base / FILE)
    rows = sampled(bench, folder)
    model, tokenizer = load_causal(str(folder))
    card = read_policy(folder) if kind != "base" else None
    chat = (
        PromptEncoder(tokenizer, card.template, card.names)
        if card
        else PromptEncoder(tokenizer, find_template(PLAIN), ())
    )
    own = load_causal(str(bench.policy))[0].eval()
    asking = PromptEncoder(tokenizer, policy.template, policy.names)
    for row in rows:
        asked = asking.prompt(row["prompt"], row["asked"], 104).ids
        (drawn,) = generate(own, tokenizer, [asked], [row["seed"]], Decoding(max_tokens=24))
        expected = slowly(model.eval(), chat.prompt(row["prompt"], {}, 104).ids, drawn.ids)
        assert row["reference"] == pytest.approx(expected, abs=1e-3)
        assert abs(row["reference"] - row["logprob"]) > 1e-3
        assert row["k3"] > 0


@pytest.mark.parametrize("batch", [1, 5])
def test_the_size_of_a_batch_changes_no_reading(batch: int, bench: Bench, base: Path) -> None:
    usual = [row["reference"] for row in sampled(bench, base)]
    Path("s.jsonl").unlink()
    Path("s.jsonl.run.json").unlink()
    assert [row["reference"] for row in sampled(bench, base, batch=batch)] == pytest.approx(usual, abs=1e-3)


@pytest.mark.slow
def test_a_killed_run_goes_on_in_a_second_process(bench: Bench, base: Path) -> None:
    asked = ["-t", "short=0:1:0.1", "--split", "all", "--limit", "40", "--max-tokens", "24", "--batch", "4"]
    command = [*IRLHF, "sample", bench.policy, bench.examples, *asked, "--reference", base, "-q", "-o"]
    with subprocess.Popen([*command, "cut.jsonl"]) as child:
        wait_until(lambda: child.poll() is not None or begun(Path("cut.jsonl")))
        child.kill()
    assert child.returncode == -signal.SIGKILL
    subprocess.run([*command, "cut.jsonl"], check=True)
    assert call(*command[len(IRLHF) :], "whole.jsonl").code == 0
    cut, whole = read(Path("cut.jsonl")), read(Path("whole.jsonl"))
    counts = json.loads(Path("cut.jsonl.run.json").read_text())["counts"]
    assert 0 < counts["resumed"] < len(whole) == 440
    assert [row["completion"] for row in cut] == [row["completion"] for row in whole]
    assert [row["reference"] for row in cut] == pytest.approx([row["reference"] for row in whole], abs=1e-3)


@pytest.mark.parametrize("flag", [["--temperature", "0.5"], ["--top-p", "0.9"], ["--temperature", "0"]])
def test_samples_that_are_not_the_policys_own_are_refused(flag: list[str], bench: Bench) -> None:
    outcome = call("sample", bench.policy, bench.examples, "--reference", bench.policy, *flag)
    assert outcome.code == 2
    assert outcome.err == (
        "irlhf: --reference needs samples from the unmodified policy; leave --temperature and --top-p at 1\n"
    )


def test_a_reference_of_another_vocabulary_is_refused(bench: Bench, base: Path) -> None:
    tree = json.loads((base / "tokenizer.json").read_text())
    tree["model"]["vocab"] = {{"a": "b", "b": "a"}.get(name, name): n for name, n in tree["model"]["vocab"].items()}
    (base / "tokenizer.json").write_text(json.dumps(tree))
    outcome = call("sample", bench.policy, bench.examples, "--max-tokens", 8, "--reference", base, "-q")
    assert outcome.code == 2
    assert "its vocabulary differs" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not list(Path.cwd().glob("samples.jsonl*"))


def test_a_changed_reference_is_not_gone_on_with(bench: Bench, base: Path) -> None:
    command = ["sample", bench.policy, bench.examples, "--limit", "2", "--max-tokens", "4", "--reference"]
    assert call(*command, base).code == 0
    assert "complete already" in call(*command, base).err
    write(base / "generation_config.json", [{"eos_token_id": 1}])
    outcome = call(*command, base)
    assert outcome.code == 2
    assert "the reference" in outcome.err
    assert "has changed" in outcome.err
    assert "reference was" in call(*command, bench.policy).err


def test_a_reference_that_is_nowhere_is_named(bench: Bench) -> None:
    outcome = call("sample", bench.policy, bench.examples, "--max-tokens", 8, "--reference", "./nowhere")
    assert outcome.code == 2
    assert "./nowhere: no such folder" in outcome.err
