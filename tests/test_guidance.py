"""sample --guidance: away from what the policy says unasked, by the book, and nothing else changes."""

import json
import shutil
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_template_cases import scaled, smooth
from helpers import Bench, Row, call, read
from test_prefix_decoding import END, OTHER, PLAIN, VOCABULARY, Letters, random_model, some

from irlhf.core.errors import ConfigError
from irlhf.models.generation import Drawn, generate
from irlhf.models.loading import load_causal
from irlhf.models.prompt_encoding import PromptEncoder
from irlhf.models.token_sampler import Decoding, TokenSampler
from irlhf.policy.policy_file import FILE, Policy, read_policy
from irlhf.policy.templates import Bound, Template
from irlhf.sampling.sample import sample
from irlhf.sampling.settings import SampleSettings
from irlhf.sampling.target_resolution import opposite

Pair = tuple[list[int], list[int]]  # token ids of the prompt that asks, and of the one that does not


def pairs(count: int = 9) -> list[Pair]:
    """Prompts of three families; what asks stands before the last two tokens."""
    heads, tail = [some(20, 1), some(31, 2), some(7, 3)], [5, 6]
    return [(heads[n % 3] + some(4, 10 + n) + tail, heads[n % 3] + tail) for n in range(count)]


def wordy(config: str = "llama") -> Any:
    """A random model whose rows end at different lengths."""
    model = random_model(PLAIN[config])
    model.get_output_embeddings().weight.data[END] *= 3
    return model


def slowly(model: Any, both: Pair, seed: int, decoding: Decoding, end: int = END) -> tuple[list[int], float, float]:
    """Draw one completion by the book: no batch, no cache, two plain forward passes a token.

    Returns the tokens, and entropy (sum) and logprob of the guided distribution at temperature 1, untruncated.
    """
    uniform = torch.rand(decoding.max_tokens, generator=torch.Generator().manual_seed(seed))
    tokens: list[int] = []
    entropy = logprob = 0.0
    while len(tokens) < decoding.max_tokens and end not in tokens:
        with torch.inference_mode():
            asked, unasked = (
                model(torch.tensor([prompt + tokens])).logits[0, -1].double().log_softmax(-1) for prompt in both
            )
        guided = (unasked + decoding.guidance * (asked - unasked)).log_softmax(-1)
        tokens.append(chosen(guided, float(uniform[len(tokens)]), decoding))
        entropy -= float((guided.exp() * guided).sum())
        logprob += float(guided[tokens[-1]])
    return tokens, entropy, logprob


def chosen(logprobs: torch.Tensor, point: float, decoding: Decoding) -> int:
    """Return the token at a point in [0, 1) of the distribution, after temperature and nucleus."""
    if decoding.temperature == 0:
        return int(logprobs.argmax())
    shares = (logprobs / decoding.temperature).softmax(-1).tolist()
    nucleus: set[int] = set()
    for token in sorted(range(len(shares)), key=lambda token: -shares[token]):
        if sum(shares[one] for one in nucleus) >= decoding.top_p:
            break
        nucleus.add(token)
    point *= sum(shares[token] for token in nucleus)
    for token in sorted(nucleus):
        point -= shares[token]
        if point < 0:
            return token
    raise AssertionError("the shares add up to less than the point")


def drawn(model: Any, asked: list[Pair], decoding: Decoding, first: int = 0) -> list[Drawn]:
    seeds = range(first, first + len(asked))
    return generate(model, Letters(), list(chain.from_iterable(asked)), seeds, decoding)


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(max_tokens=20, guidance=2),
        Decoding(max_tokens=20, guidance=0.5),
        Decoding(max_tokens=20, guidance=20),
        Decoding(0.7, 1, 20, guidance=3),
        Decoding(1, 0.8, 20, guidance=1.5),
        Decoding(1.3, 0.6, 20, guidance=2),
        Decoding(0, 1, 20, guidance=3),
    ],
    ids=str,
)
def test_guided_draws_are_those_of_two_plain_passes_a_token(decoding: Decoding) -> None:
    model = wordy()
    found = drawn(model, pairs(), decoding)
    assert len({one.tokens for one in found}) > 2
    for seed, (both, ours) in enumerate(zip(pairs(), found, strict=True)):
        tokens, entropy, logprob = slowly(model, both, seed, decoding)
        assert list(ours.ids) == tokens
        assert ours.entropy * len(tokens) == pytest.approx(entropy, abs=5e-3)
        assert ours.logprob == pytest.approx(logprob, abs=5e-3)


@pytest.mark.parametrize("decoding", [Decoding(1, 0.8, 20), Decoding(0.7, 0.5, 20), Decoding(1.4, 1, 20)], ids=str)
def test_temperature_and_top_p_are_by_the_book_without_guidance(decoding: Decoding) -> None:
    model = wordy()
    found = generate(model, Letters(), [asked for asked, _ in pairs()], range(9), decoding)
    by_the_book = [slowly(model, (asked, asked), seed, decoding) for seed, (asked, _) in enumerate(pairs())]
    assert [list(one.ids) for one in found] == [tokens for tokens, _, _ in by_the_book]
    assert [one.logprob for one in found] == pytest.approx([one for _, _, one in by_the_book], abs=2e-3)


@pytest.mark.parametrize("name", ["gpt2", "neox", "bloom", "qwen3"])
def test_other_plain_models_are_guided_alike(name: str) -> None:
    model, decoding = wordy(name), Decoding(max_tokens=12, guidance=2)
    by_the_book = [slowly(model, both, seed, decoding)[0] for seed, both in enumerate(pairs(5))]
    assert [list(one.ids) for one in drawn(model, pairs(5), decoding)] == by_the_book


@pytest.mark.parametrize("guidance", [0.0, 3.0])
@pytest.mark.parametrize("size", [1, 4])
def test_company_changes_no_guided_draw(size: int, guidance: float) -> None:
    model, decoding = wordy(), Decoding(max_tokens=24, guidance=guidance)
    together = drawn(model, pairs(), decoding)
    parts = [drawn(model, pairs()[start : start + size], decoding, start) for start in range(0, 9, size)]
    assert [one.ids for one in chain.from_iterable(parts)] == [one.ids for one in together]


def read_places(model: Any) -> list[tuple[int, int]]:
    """Return a list that the shape of all that the model reads from now on falls into."""
    read: list[tuple[int, int]] = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, given: read.append(tuple(given[0].shape)))
    return read


def test_what_both_prompts_share_is_read_once() -> None:
    model = random_model(PLAIN["llama"])
    head = some(100, 1)
    places = read_places(model)
    drawn(model, [(head + some(6, n), head) for n in range(8)], Decoding(0, 1, 1, guidance=2))
    assert sum(rows * width for rows, width in places) <= 1 + 106 + 16 * 6


def test_both_rows_of_what_has_ended_are_dropped() -> None:
    model = wordy()
    places = read_places(model)
    found = drawn(model, [(some(5, n), some(4, n)) for n in range(40)], Decoding(max_tokens=100, guidance=1.2))
    assert {rows % 2 for rows, _ in places[2:]} == {0}
    assert sum(rows for rows, _ in places[2:]) < 1.3 * 2 * sum(one.tokens for one in found)


def test_guidance_of_one_reads_no_second_prompt() -> None:
    model = wordy()
    asked = [one for one, _ in pairs()]
    places = read_places(model)
    usual = generate(model, Letters(), asked, range(9), Decoding(max_tokens=20))
    count = len(places)
    assert generate(model, Letters(), asked, range(9), Decoding(max_tokens=20, guidance=1.0)) == usual
    assert places[count:] == places[:count]


def test_a_token_that_one_side_rules_out_is_still_a_number() -> None:
    scores = torch.zeros(2, VOCABULARY)
    scores[:, 7:] = float("-inf")
    scores[0, 3] = float("-inf")  # ruled out behind the prompt that asks
    for seed in range(40):
        dice = TokenSampler([seed], Decoding(guidance=2, max_tokens=1), [END], torch.device("cpu"))
        assert int(dice.draw(scores)) in {0, 1, 2, 4, 5, 6}
        assert float(dice.entropy) == pytest.approx(float(torch.tensor(6).log()), abs=1e-4)


@pytest.mark.parametrize("name", OTHER)
def test_a_model_with_another_memory_is_refused(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"--guidance needs a model with a plain key-value cache, .* remove the option"
    ):
        drawn(random_model(OTHER[name]), pairs(1), Decoding(guidance=2))


def sampled(bench: Bench, target: tuple[str, ...] = ("short=0.9", "colour=0.1"), **more: Any) -> list[Row]:
    settings: dict[str, Any] = {"split": "all", "limit": 12, "max_tokens": 24, **more}
    Path("s.jsonl").unlink(missing_ok=True)
    Path("s.jsonl.run.json").unlink(missing_ok=True)
    sample(bench.policy, bench.examples, "s.jsonl", SampleSettings(target, **settings))
    return read(Path("s.jsonl"))


MEASURES = ("entropy", "logprob")


def drawn_parts(rows: list[Row]) -> list[tuple[object, ...]]:
    return [(row["completion"], row["tokens"], row["finish"], row["seed"]) for row in rows]


def test_guidance_of_zero_draws_what_is_drawn_unasked(bench: Bench) -> None:
    zero, unasked = sampled(bench, guidance=0.0), sampled(bench, ())
    assert drawn_parts(zero) == drawn_parts(unasked)
    assert (zero[0]["decoding"]["guidance"], unasked[0]["decoding"]["guidance"]) == (0, 1)
    for name in MEASURES:
        assert [row[name] for row in zero] == pytest.approx([row[name] for row in unasked], abs=1e-3)


def test_guidance_of_one_is_no_guidance_to_the_byte(bench: Bench) -> None:
    command = ["sample", bench.policy, bench.examples, "-t", "short=0.9", "--limit", 9, "--max-tokens", 16, "-q", "-o"]
    assert call(*command, "usual.jsonl").code == 0
    assert call(*command, "one.jsonl", "--guidance", "1").code == 0
    assert call(*command, "two.jsonl", "--guidance", "2").code == 0
    assert Path("one.jsonl").read_bytes() == Path("usual.jsonl").read_bytes()
    assert drawn_parts(read(Path("two.jsonl"))) != drawn_parts(read(Path("usual.jsonl")))


def test_a_policys_samples_are_guided_by_its_own_prompt_without_rewards(bench: Bench) -> None:
    policy, decoding = read_policy(bench.policy), Decoding(max_tokens=24, guidance=4)
    model, tokenizer = load_causal(str(bench.policy))
    chat = PromptEncoder(tokenizer, policy.template, policy.names)
    for row in sampled(bench, guidance=4.0)[:4]:
        asked, unasked = (chat.prompt(row["prompt"], asked, 104).ids for asked in (row["asked"], {}))
        tokens, entropy, logprob = slowly(model.eval(), (asked, unasked), row["seed"], decoding, tokenizer.eos_token_id)
        assert row["completion"] == tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert row["tokens"] == len(tokens)
        assert row["entropy"] == pytest.approx(entropy / len(tokens), abs=2e-3)
        assert row["logprob"] == pytest.approx(logprob, abs=1e-2)


@pytest.mark.parametrize("batch", [1, 5])
def test_the_size_of_a_batch_changes_no_guided_sample(batch: int, bench: Bench) -> None:
    more: dict[str, Any] = {"n": 2, "guidance": 3.0}
    assert drawn_parts(sampled(bench, batch=batch, **more)) == drawn_parts(sampled(bench, **more))


def test_guided_samples_that_were_cut_off_go_on_as_if_nothing_had_been(bench: Bench) -> None:
    whole = sampled(bench, guidance=3.0)
    lines = Path("s.jsonl").read_bytes().splitlines(keepends=True)
    Path("s.jsonl").rename("s.jsonl.partial")
    Path("s.jsonl.partial").write_bytes(b"".join(lines[:5]))
    card = json.loads(Path("s.jsonl.run.json").read_text())
    settings = SampleSettings(("short=0.9", "colour=0.1"), split="all", limit=12, max_tokens=24, guidance=3.0)
    summary = sample(bench.policy, bench.examples, "s.jsonl", settings)
    assert (summary["resumed"], card["counts"]["written"]) == (5, 12)
    assert read(Path("s.jsonl")) == whole


def test_kl_from_the_unasked_policy_is_none_at_zero_and_grows_with_guidance(bench: Bench) -> None:
    kl = []
    for guidance in (0.0, 1.0, 4.0):
        rows = sampled(bench, guidance=guidance, n=4, reference=str(bench.policy))
        kl.append(sum(row["logprob"] - row["reference"] for row in rows) / len(rows))
    assert kl[0] == pytest.approx(0, abs=1e-3)
    assert kl[0] < kl[1] < kl[2]


@pytest.mark.parametrize("guidance", ["nan", "-1", "20.5", "inf"])
def test_what_is_no_guidance_is_refused(guidance: str, bench: Bench) -> None:
    outcome = call("sample", bench.policy, bench.examples, "-t", "short=1", f"--guidance={guidance}")
    assert outcome.code == 2
    assert "guidance" in outcome.err
    with pytest.raises(ConfigError, match="write a number from 0 to 20; 1 means no guidance"):
        sampled(bench, guidance=float(guidance))


@pytest.mark.parametrize(
    ("blind", "asked", "why"),
    [(False, [], "there are no targets"), (True, ["-t", "short=0.9"], "this policy's prompts have no rewards")],
)
def test_where_nothing_is_asked_guidance_is_refused(blind: bool, asked: list[str], why: str, bench: Bench) -> None:
    card = json.loads((bench.policy / FILE).read_text())
    Path("policy").mkdir()
    Path("policy", FILE).write_text(json.dumps(card | ({"template": {"place": "none"}} if blind else {})))
    outcome = call("sample", "policy", bench.examples, *asked, "--guidance", "2")
    assert outcome.code == 2
    assert outcome.err == f"irlhf: --guidance 2 compares prompts with and without targets, but {why}; remove it\n"


def test_a_policy_with_another_memory_is_refused_in_one_line(bench: Bench) -> None:
    folder = Path(shutil.copytree(bench.policy, "policy"))
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(config | {"cache_implementation": "static"}))
    outcome = call("sample", folder, bench.examples, "-t", "short=1", "--guidance", 2, "--max-tokens", 8, "-q")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "plain key-value cache, which LlamaForCausalLM does not have" in outcome.err
    assert not list(Path.cwd().glob("samples.jsonl"))


def test_the_opposite_of_a_number_is_mirrored_on_its_scale(bench: Bench) -> None:
    policy = smooth(read_policy(bench.policy))
    assert opposite(policy, {"short": 0.9, "colour": 0.5}) == pytest.approx({"short": 0.1, "colour": 0.5})


def test_the_opposite_is_a_number_that_training_rows_have_unless_raw(bench: Bench) -> None:
    policy = read_policy(bench.policy)
    number = policy.shown("short", 0.9)
    assert opposite(policy, {"short": number}) == {"short": policy.shown("short", 1 - number)}
    assert opposite(policy, {"short": number}, raw=True) == {"short": pytest.approx(1 - number)}


@pytest.mark.parametrize("kind", ["zscore", "none"])
def test_a_scale_without_ends_is_mirrored_about_the_training_mean(kind: str, bench: Bench) -> None:
    policy = scaled(read_policy(bench.policy), kind)
    rewards = tuple(
        replace(card, scale=replace(card.scale, xs=(-card.mean, card.deviation) if kind == "zscore" else ()))
        for card in policy.rewards
    )
    policy = replace(policy, rewards=rewards)
    card = policy.reward("short")  # lower is better, so the scale negates it
    middle = 0.0 if kind == "zscore" else -card.mean
    assert opposite(policy, {"short": middle + 1.5}) == {"short": pytest.approx(middle - 1.5)}


def with_lines(policy: Policy, **lines: str) -> Policy:
    return replace(smooth(policy), template=Template(**lines))


def test_at_least_becomes_at_most_where_the_template_has_a_line_for_it(bench: Bench) -> None:
    policy = read_policy(bench.policy)
    low, high = Bound("at_least", 0.7), Bound("at_most", 0.7)
    both = with_lines(policy, at_least="{{ name }}: at least {{ value }}", at_most="{{ name }}: at most {{ value }}")
    assert opposite(both, {"short": low, "colour": high}) == {"short": high, "colour": low}
    single = with_lines(policy, at_least="{{ name }}: at least {{ value }}")
    assert opposite(single, {"short": low}) == {"short": pytest.approx(0.3)}


def test_samples_are_guided_by_the_prompt_with_the_opposite_targets(bench: Bench) -> None:
    policy, decoding = read_policy(bench.policy), Decoding(max_tokens=24, guidance=4)
    model, tokenizer = load_causal(str(bench.policy))
    chat = PromptEncoder(tokenizer, policy.template, policy.names)
    rows = sampled(bench, guidance=4.0, against="opposite")
    for row in rows[:4]:
        both = (row["asked"], opposite(policy, row["asked"]))
        prompts = [chat.prompt(row["prompt"], targets, 104).ids for targets in both]
        tokens, _, logprob = slowly(
            model.eval(), (prompts[0], prompts[1]), row["seed"], decoding, tokenizer.eos_token_id
        )
        assert row["completion"] == tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert row["logprob"] == pytest.approx(logprob, abs=1e-2)
    assert drawn_parts(rows) != drawn_parts(sampled(bench, guidance=4.0))


def test_rows_say_that_they_were_guided_against_the_opposite_and_others_are_unchanged(bench: Bench) -> None:
    rows = sampled(bench, guidance=2.0, against="opposite")
    assert rows[0]["decoding"] == {
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 24,
        "guidance": 2.0,
        "against_opposite": 1.0,
    }
    assert "against_opposite" not in sampled(bench, guidance=2.0)[0]["decoding"]


def test_a_request_in_the_middle_is_its_own_opposite(bench: Bench) -> None:
    middle = sampled(bench, ("colour=0.5",), guidance=4.0, against="opposite", raw=True)
    assert drawn_parts(middle) == drawn_parts(sampled(bench, ("colour=0.5",), raw=True))


def test_against_without_guidance_is_refused(bench: Bench) -> None:
    outcome = call("sample", bench.policy, bench.examples, "-t", "short=1", "--against", "opposite")
    assert (outcome.code, outcome.err) == (
        2,
        "irlhf: --against opposite needs --guidance above 1, such as --guidance 1.5\n",
    )


def test_going_on_against_something_else_is_refused_by_name(bench: Bench) -> None:
    sampled(bench, guidance=2.0)
    settings = SampleSettings(("short=0.9", "colour=0.1"), split="all", limit=12, max_tokens=24, guidance=2.0)
    with pytest.raises(ConfigError, match="against was none and is opposite"):
        sample(bench.policy, bench.examples, "s.jsonl", replace(settings, against="opposite"))
