"""What is known of entropy and KL from little: always on the right side of what the whole distributions say."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from helpers import Bench
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from irlhf.core.entropy_bounds import bracket, k3, likeliest
from irlhf.models.generation import generate
from irlhf.models.loading import load_causal
from irlhf.models.token_logprobs import logprobs
from irlhf.models.token_sampler import Decoding

TOPS = (1, 5, 20)
NOISE = 1e-9  # of sums of doubles

logits = st.lists(st.floats(-3, 3) | st.floats(-600, 600) | st.sampled_from([0.0, -1e4, 30.0]), min_size=1, max_size=60)


def normal(numbers: list[float]) -> list[float]:
    """Return the log-probabilities of these logits, the likeliest first."""
    return sorted(torch.tensor(numbers, dtype=torch.double).log_softmax(-1).tolist(), reverse=True)


def entropy(numbers: list[float]) -> float:
    return math.fsum(-math.exp(one) * one for one in numbers)


@given(logits, st.integers(0, 60), st.integers(0, 40))
@settings(max_examples=400, deadline=None)
def test_the_entropy_of_any_distribution_lies_in_its_bracket(numbers: list[float], k: int, spare: int) -> None:
    every = normal(numbers)
    low, high = bracket(every[:k], len(every))
    assert high is not None
    assert low - NOISE <= entropy(every) <= high + NOISE <= math.log(len(every)) + 3 * NOISE
    wider_low, wider_high = bracket(every[:k], len(every) + spare)
    assert wider_high is not None
    assert wider_low == low
    assert wider_high >= high - NOISE
    assert bracket(every[:k], None) == (low, None)


@given(logits, st.integers(0, 59), st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_more_tokens_give_a_bracket_within(numbers: list[float], k: int, more: int) -> None:
    every = normal(numbers)
    low, high = bracket(every[:k], len(every))
    inner_low, inner_high = bracket(every[: k + more], len(every))
    assert high is not None
    assert inner_high is not None
    assert low - NOISE <= inner_low <= inner_high <= high + NOISE


@given(logits, st.sets(st.integers(0, 59)))
@settings(max_examples=200, deadline=None)
def test_a_list_that_may_lack_some_bounds_it_all_the_same(numbers: list[float], kept: set[int]) -> None:
    every = normal(numbers)
    low, high = bracket([one for i, one in enumerate(every) if i in kept], len(every), whole=False)
    assert high is not None
    assert low - NOISE <= entropy(every) <= high + NOISE


@given(logits, st.sampled_from(TOPS), st.integers(0, 59), st.integers(0, 59))
@settings(max_examples=300, deadline=None)
def test_a_servers_list_bounds_it_with_the_drawn_token_and_two_tokens_of_one_text(
    numbers: list[float], k: int, drawn: int, twin: int
) -> None:
    every = normal(numbers)
    drawn, twin = drawn % len(every), twin % len(every)
    named = {i: str(min(i, twin) if i in (drawn, twin, 0) else i) for i in range(len(every))}
    for order in ([*range(min(k, len(every))), drawn], [drawn, *range(min(k, len(every)))]):
        listed = {named[i]: every[i] for i in order}
        top, whole = likeliest(list(listed.values()), every[drawn], k, distinct=False)
        low, high = bracket(top, len(every), whole)
        assert high is not None
        assert low - NOISE <= entropy(every) <= high + NOISE


def test_the_drawn_token_beyond_the_likeliest_is_left_out() -> None:
    every = normal([float(-n) for n in range(9)])
    assert likeliest([every[7], *every[:5]], every[7], 5, distinct=False) == (every[:5], True)
    assert likeliest(every[:5], every[3], 5, distinct=False) == (every[:5], True)
    assert likeliest(every[:5], every[4], 5, distinct=False) == (every[:5], False)
    assert likeliest(every[:5], every[4], 5, distinct=True) == (every[:5], True)
    assert likeliest(every[:3], every[1], 5, distinct=True) == (every[:3], False)


@pytest.mark.parametrize(
    ("numbers", "vocabulary", "expected"),
    [
        ([0.0], 100, (0, 0)),
        ([1e-7, -9999.0, float("-inf")], 100, (0, 0)),  # rounding has put it above 1
        ([math.log(0.5)] * 2, 2, (math.log(2), math.log(2))),
        ([math.log(0.5)] * 2, 1, (math.log(2), None)),  # there are more than the vocabulary is said to have
        ([], 8, (0, math.log(8))),
        ([], None, (0, None)),
        (
            [math.log(0.4)],
            101,
            (0.8 * -math.log(0.4) + 0.2 * -math.log(0.2), -0.4 * math.log(0.4) - 0.6 * math.log(6e-3)),
        ),
    ],
)
def test_brackets_by_hand(numbers: list[float], vocabulary: int, expected: tuple[float, float | None]) -> None:
    for found, wanted in zip(bracket(numbers, vocabulary), expected, strict=True):
        assert found == (wanted if wanted is None else pytest.approx(wanted, abs=1e-6))


@given(st.lists(st.tuples(st.floats(-1e4, 0), st.floats(-1e4, 0)), max_size=20))
def test_k3_is_never_below_nothing_and_is_a_number(pairs: list[tuple[float, float]]) -> None:
    found = k3([mine for mine, _ in pairs], [theirs for _, theirs in pairs])
    assert 0 <= found < 1e100
    assert k3([mine for mine, _ in pairs], [mine for mine, _ in pairs]) == 0


class Steps(NamedTuple):
    """Samples of a policy, and what the whole distributions of both models say of every token."""

    own: list[torch.Tensor]  # the policy's log-probabilities of each sample, [tokens, vocabulary]
    kl: list[float]  # from the reference, exact at every token, summed over a sample
    mine: list[list[float]]  # of the drawn tokens
    theirs: list[list[float]]
    entropy: list[float]  # as irlhf has it, the mean of each sample


def whole(model: Any, prompt: list[int], ids: tuple[int, ...]) -> torch.Tensor:
    with torch.inference_mode():
        found = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return found.double().log_softmax(-1)


def steps(policy: Any, reference: Any, tokenizer: Any, prompts: tuple[list[int], list[int]], n: int) -> Steps:
    """Draw from the policy behind one prompt, and read it with the reference behind the other."""
    drawn = generate(policy, tokenizer, [prompts[0]] * n, range(n), Decoding(max_tokens=24))
    theirs = logprobs(reference, [(prompts[1], one.ids) for one in drawn])
    own = [whole(policy, prompts[0], one.ids) for one in drawn]
    other = [whole(reference, prompts[1], one.ids) for one in drawn]
    kl = [float((p.exp() * (p - q)).sum()) for p, q in zip(own, other, strict=True)]
    return Steps(own, kl, [list(one.logprobs) for one in drawn], theirs, [one.entropy for one in drawn])


def check_brackets(found: Steps) -> None:
    for shares, known in zip(found.own, found.entropy, strict=True):
        exact = -(shares.exp() * shares).sum(-1)
        assert float(exact.mean()) == pytest.approx(known, abs=2e-3)
        for row, inside in zip(shares, exact.tolist(), strict=True):
            each = [bracket(row.topk(min(k, len(row))).values.tolist(), len(row)) for k in TOPS]
            for low, high in each:
                assert high is not None
                assert low - NOISE <= inside <= high + NOISE
            for (low, high), (inner_low, inner_high) in pairwise(each):
                assert low - NOISE <= inner_low <= inner_high <= high + NOISE


def check_estimators(found: Steps) -> float:
    """Hold estimates to the truth on the same samples, and return how wide k3 spreads beside k1."""
    exact = torch.tensor(found.kl)
    pairs = list(zip(found.mine, found.theirs, strict=True))
    first = torch.tensor([sum(mine) - sum(theirs) for mine, theirs in pairs])
    third = torch.tensor([k3(mine, theirs) for mine, theirs in pairs])
    surprisal = torch.tensor([-sum(mine) for mine in found.mine])
    entropies = torch.tensor([float(-(own.exp() * own).sum()) for own in found.own])
    for estimate, true in ((first, exact), (third, exact), (surprisal, entropies)):
        missed = estimate - true  # on the same paths, so that their own spread drops out
        assert abs(float(missed.mean())) < 3 * float(missed.std()) / len(missed) ** 0.5
        assert float(missed.std()) > 0
    assert min(third) >= 0 > min(first)
    return float(third.std() / first.std())


class Letters:
    """The least of a tokenizer that a random model needs."""

    eos_token_id = 2
    pad_token_id = 0

    def decode(self, ids: list[int], **_: object) -> str:
        return " ".join(map(str, ids))


def random_llama(seed: int, spread: float) -> Any:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=300, eos_token_id=2, **sizes)).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(spread)
    return model


def test_a_random_models_tokens_lie_in_their_brackets_and_estimates_at_the_truth() -> None:
    policy = random_llama(0, 6.0)
    reference = random_llama(0, 6.0)
    with torch.no_grad():
        reference.lm_head.weight.add_(0.06 * torch.randn_like(reference.lm_head.weight))
    found = steps(policy, reference, Letters(), ([1, 5, 9], [1, 5, 9]), 400)
    check_brackets(Steps(*(each[:40] for each in found)))
    assert check_estimators(found) < 0.9


def test_a_trained_policys_tokens_lie_in_their_brackets(bench: Bench) -> None:
    model, tokenizer = load_causal(str(bench.policy))
    prompts = tuple(tokenizer(text)["input_ids"] for text in ("Human: Why?\nshort: 0.90", "Human: Why?"))
    check_brackets(steps(model.eval(), model, tokenizer, (prompts[0], prompts[1]), 10))


@pytest.mark.slow  # a training
def test_a_pretrained_models_tokens_lie_in_their_brackets_and_estimates_at_the_truth(shared: Path) -> None:
    model, tokenizer = load_causal(str(shared / "stories260K"))
    prompts = [tokenizer(text)["input_ids"] for text in ("Tom was sad. One day, he", "One day, he")]
    found = steps(model.eval(), model, tokenizer, (prompts[0], prompts[1]), 300)
    check_brackets(Steps(*(each[:40] for each in found)))
    check_estimators(found)
