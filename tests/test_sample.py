"""sample: what is asked is what is written, and a draw hangs on its own seed alone."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Bench, Row, call, example, process, read, write

from irlhf.core.errors import DataError
from irlhf.models.generation import Drawn, generate
from irlhf.models.loading import load_causal
from irlhf.models.prompt_encoding import PromptEncoder
from irlhf.models.token_sampler import Decoding
from irlhf.policy.policy_file import Policy, read_policy
from irlhf.sampling.sample import sample
from irlhf.sampling.settings import SampleSettings
from irlhf.sampling.target_resolution import TargetSpec, read_targets


def sampled(
    bench: Bench, target: tuple[str, ...] = ("short=0.5",), name: str = "samples.jsonl", **more: Any
) -> list[Row]:
    settings: dict[str, Any] = {"split": "all", "limit": 12, "max_tokens": 16, **more}
    sample(bench.policy, bench.examples, name, SampleSettings(target=target, **settings))
    return read(Path(name))


def texts(rows: list[Row]) -> list[str]:
    return [row["completion"] for row in rows]


@pytest.fixture(scope="module")
def usual(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return sampled(bench, name=str(tmp_path_factory.mktemp("usual") / "samples.jsonl"))


def test_a_sample_is_a_legal_example_with_its_history(bench: Bench, usual: list[Row]) -> None:
    first = usual[0]
    policy = read_policy(bench.policy)
    known = {
        "id",
        "prompt",
        "completion",
        "group",
        "split",
        "target",
        "asked",
        "finish",
        "tokens",
        "entropy",
        "logprob",
    }
    assert set(first) == known | {"policy", "seed", "decoding"}
    assert first["decoding"] == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 16, "guidance": 1.0}
    assert first["id"] == f"g0/{policy.digest}/0/0"
    assert (first["group"], first["split"], first["policy"]) == ("g0", "test", policy.digest)
    assert first["prompt"] == read(bench.examples)[0]["prompt"]
    assert first["target"] == {"short": "0.5"}
    assert first["asked"] == {"short": 0.375}  # the nearest number that a training row has
    assert first["finish"] in ("stop", "length")
    assert first["tokens"] <= 16


def test_every_sample_has_a_seed_of_its_own(bench: Bench) -> None:
    rows = sampled(bench, ("short=0:1:0.5",), n=2, max_tokens=1)
    assert len({row["seed"] for row in rows}) == len(rows) == 72


@pytest.mark.parametrize("batch", [1, 5])
def test_the_size_of_a_batch_changes_nothing(batch: int, bench: Bench, usual: list[Row]) -> None:
    assert texts(sampled(bench, batch=batch)) == texts(usual)


def test_another_seed_draws_other_texts(bench: Bench, usual: list[Row]) -> None:
    other = sampled(bench, seed=1)
    assert sum(a != b for a, b in zip(texts(other), texts(usual), strict=True)) > 9
    assert {row["seed"] for row in other}.isdisjoint(row["seed"] for row in usual)


def test_a_prompt_draws_the_same_whatever_stands_beside_it(bench: Bench, usual: list[Row]) -> None:
    assert texts(sampled(bench, limit=5)) == texts(usual)[:5]


def test_temperature_zero_needs_no_luck(bench: Bench, usual: list[Row]) -> None:
    one, other = (sampled(bench, temperature=0, seed=seed, name=f"{seed}.jsonl") for seed in (0, 1))
    assert texts(one) == texts(other)
    assert texts(one) != texts(usual)


def test_a_narrow_nucleus_is_the_likeliest_token(bench: Bench, usual: list[Row]) -> None:
    narrow = sampled(bench, top_p=1e-6, name="narrow.jsonl")
    assert texts(narrow) == texts(sampled(bench, temperature=0, name="greedy.jsonl"))
    assert texts(sampled(bench, top_p=0.7, name="wide.jsonl")) != texts(usual)


def test_a_sweep_asks_every_point_of_every_prompt(bench: Bench) -> None:
    rows = sampled(bench, ("short=0:1:0.5", "colour=0.1:0.9:0.8"), n=2, limit=3, max_tokens=2, raw=True)
    asked = Counter((row["group"], row["asked"]["short"], row["asked"]["colour"]) for row in rows)
    assert set(asked) == {(f"g{i}", a, b) for i in range(3) for a in (0, 0.5, 1) for b in (0.1, 0.9)}
    assert set(asked.values()) == {2}
    assert len({row["id"] for row in rows}) == len(rows) == 36


def test_prompts_of_the_test_split_are_asked_once_each(bench: Bench) -> None:
    sample(bench.policy, bench.examples, "samples.jsonl", SampleSettings(target=("short=0.5",), max_tokens=2))
    assert [row["group"] for row in read(Path("samples.jsonl"))] == [f"g{i}" for i in range(0, 240, 10)]


def test_several_completions_of_a_prompt_are_one_prompt(bench: Bench) -> None:
    write(Path("in.jsonl"), [example(i, prompt="q", group=group) for i, group in enumerate(["g", "g", "h", ""])])
    summary = sample(bench.policy, "in.jsonl", "samples.jsonl", SampleSettings(target=("short=1",), n=3, max_tokens=2))
    assert (summary["prompts"], summary["written"]) == (1, 3)


@pytest.mark.parametrize("shared", [{"group": "same"}, {"id": "same"}])
def test_different_prompts_of_one_group_or_id_are_all_sampled(bench: Bench, shared: Row) -> None:
    write(Path("in.jsonl"), [{**example(i), **shared} for i in range(4)])
    summary = sample(bench.policy, "in.jsonl", "samples.jsonl", SampleSettings(target=("short=1",), max_tokens=2))
    assert (summary["prompts"], summary["written"]) == (4, 4)
    rows = read(Path("samples.jsonl"))
    assert len({row["group"] for row in rows}) == len({row["id"] for row in rows}) == 4


@pytest.mark.slow  # a whole process
def test_prompts_from_stdin_are_asked_as_those_of_a_file_are(bench: Bench, usual: list[Row]) -> None:
    command = ["sample", bench.policy, "-", "-t", "short=0.5", "--split", "all", "--limit", "12", "--max-tokens", "16"]
    done = process(*command, given=bench.examples.read_bytes())
    assert done.returncode == 0, done.stderr
    assert texts([json.loads(line) for line in done.stdout.split(b"\n")[:-1]]) == texts(usual)


def test_a_bad_row_at_the_end_is_found_before_anything_is_drawn(bench: Bench) -> None:
    write(Path("in.jsonl"), [example(i) for i in range(3)])
    with Path("in.jsonl").open("a") as stream:
        stream.write("{}\n")
    with pytest.raises(DataError, match=r"in\.jsonl:4: no 'prompt'"):
        sample(bench.policy, "in.jsonl", "samples.jsonl", SampleSettings(target=("short=1",), limit=1))
    assert not list(Path.cwd().glob("samples*"))


def test_bare_prompts_need_no_id(bench: Bench) -> None:
    write(Path("in.jsonl"), [{"prompt": "How?"}, {"prompt": "Why?", "id": "w"}])
    sample(bench.policy, "in.jsonl", "samples.jsonl", SampleSettings(target=("short=1",), max_tokens=2))
    assert [row["group"] for row in read(Path("samples.jsonl"))] == ["in-0", "w"]


def test_what_lies_beyond_the_scale_is_held_to_it_visibly(bench: Bench) -> None:
    command = ["sample", bench.policy, bench.examples, "--limit", "1", "--max-tokens", "2", "-o", "samples.jsonl"]
    outcome = call(*command, "-t", "short=1.5", "-t", "colour=-3")
    policy = read_policy(bench.policy)
    ends = {"short": policy.reward("short").scale.ys[-1], "colour": policy.reward("colour").scale.ys[0]}
    assert [row["asked"] for row in read(Path("samples.jsonl"))] == [pytest.approx(ends, abs=1e-6)]
    assert "warning: short=1.5 is outside" in outcome.err


def test_what_is_not_asked_for_has_no_line(bench: Bench) -> None:
    policy = read_policy(bench.policy)
    chat = PromptEncoder(load_causal(str(bench.policy))[1], policy.template, policy.names)
    (request,) = TargetSpec(policy, read_targets(["colour=0.5"], policy)).requests(1, "seed")
    assert request.prompt_values == {"colour": 0.5}
    assert chat.text("How?", request.prompt_values) == "Human: How?\n\ncolour: 0.50\n\nAssistant:"


def joint(policy: Policy, count: int, seed: str) -> list[dict[str, Any]]:
    wanted = TargetSpec(policy, read_targets(["short=data", "colour=data"], policy))
    return [one.prompt_values for one in wanted.requests(count, seed)]


def test_joint_targets_are_rows_of_the_training_data(bench: Bench) -> None:
    policy = read_policy(bench.policy)
    rows = {tuple(card.scale(x) for card, x in zip(policy.rewards, row, strict=True)) for row in policy.reservoir}
    for seed in range(20):
        assert {tuple(one.values()) for one in joint(policy, 8, str(seed))} <= rows


def test_joint_targets_spread_evenly_within_a_prompt(bench: Bench) -> None:
    policy = read_policy(bench.policy)
    even = [sorted(one["short"] for one in joint(policy, 8, str(seed))) for seed in range(60)]
    gaps = [max(abs(value - (i + 0.5) / 8) for i, value in enumerate(mine)) for mine in even]
    alone = sorted(joint(policy, 1, str(seed))[0]["short"] for seed in range(480))
    chance = [sorted(alone[i::60]) for i in range(60)]
    assert sum(gaps) / len(gaps) < 0.2
    assert chance != even


def reference(model: Any, tokenizer: Any, prompt: list[int], seed: int, decoding: Decoding) -> Drawn:
    """Draw one completion the slow way: no batch, no cache, one plain forward pass a token."""
    uniform = torch.rand(decoding.max_tokens, generator=torch.Generator().manual_seed(seed))
    ids, entropy, logprob = list(prompt), 0.0, 0.0
    for step in range(decoding.max_tokens):
        with torch.inference_mode():
            logprobs = model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
        if decoding.temperature == 0:
            token = int(logprobs.argmax())
        else:
            shares = (logprobs / decoding.temperature).softmax(-1).cumsum(-1)
            token = int((shares > float(uniform[step])).nonzero()[0])
        entropy -= float((logprobs.exp() * logprobs).sum())
        logprob += float(logprobs[token])
        ids.append(token)
        if token == tokenizer.eos_token_id:
            break
    drawn = ids[len(prompt) :]
    finish = "stop" if drawn[-1] == tokenizer.eos_token_id else "length"
    text = tokenizer.decode(drawn, skip_special_tokens=True).strip()
    return Drawn(text, finish, len(drawn), entropy / len(drawn), logprob, tuple(drawn))


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.6])
def test_draws_entropy_and_logprob_are_those_of_the_plain_model(temperature: float, bench: Bench) -> None:
    model, tokenizer = load_causal(str(bench.policy))
    policy = read_policy(bench.policy)
    chat = PromptEncoder(tokenizer, policy.template, policy.names)
    prompts = [chat.prompt(row["prompt"], {"short": 0.9}, 90).ids for row in read(bench.examples)[:6]]
    prompts[0] = prompts[0][-7:]
    decoding = Decoding(temperature=temperature, max_tokens=24)
    found = generate(model.eval(), tokenizer, prompts, range(6), decoding)
    for seed, (prompt, ours) in enumerate(zip(prompts, found, strict=True)):
        theirs = reference(model, tokenizer, prompt, seed, decoding)
        assert (*ours[:3], ours.ids) == (*theirs[:3], theirs.ids)
        assert ours[3:5] == pytest.approx(theirs[3:5], abs=2e-3)


def test_tokens_come_as_often_as_the_model_says(bench: Bench) -> None:
    model, tokenizer = load_causal(str(bench.policy))
    prompt = tokenizer("Human: How?\n\nAssistant: To", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        shares = model.eval()(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    found = generate(model, tokenizer, [prompt] * 1500, range(1500), Decoding(max_tokens=1))
    logprobs = Counter(round(one.logprob, 2) for one in found)
    for share in shares.topk(3).values.tolist():
        seen = logprobs[round(float(torch.tensor(share).log()), 2)] / 1500
        assert seen == pytest.approx(share, abs=4 * (share * (1 - share) / 1500) ** 0.5 + 0.01)
