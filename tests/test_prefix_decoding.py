"""The decoding loop: the tokens of `generate`, whatever is shared, padded or dropped on the way."""

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    GenerationConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    Qwen3Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from irlhf.models import generation, prefix_decoding
from irlhf.models.loading import load_causal
from irlhf.models.prefix_decoding import plan, remembers_all
from irlhf.models.token_sampler import Decoding, TokenSampler

VOCABULARY, END = 97, 2
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
DEEP = {**SIZES, "intermediate_size": 64, "max_position_embeddings": 256}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 256}
NEO = {"window_size": 8, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
PLAIN: dict[str, Any] = {
    "llama": LlamaConfig(**DEEP, num_key_value_heads=2),
    "qwen3": Qwen3Config(**DEEP, num_key_value_heads=2, head_dim=8),
    "gpt2": GPT2Config(**GPT2),
    "neox": GPTNeoXConfig(**DEEP),
    "opt": OPTConfig(**SIZES, ffn_dim=64, max_position_embeddings=256, word_embed_proj_dim=32),
    "bloom": BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_head=4, n_layer=2),
    "neo": GPTNeoConfig(vocab_size=VOCABULARY, hidden_size=32, max_position_embeddings=256, **NEO),
}
OTHER: dict[str, Any] = {
    "sliding": MistralConfig(**DEEP, num_key_value_heads=2, sliding_window=8),
    "mamba": MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4),
}


class Letters:
    """As much of a tokenizer as drawing needs."""

    eos_token_id, pad_token_id = END, 0

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return " ".join(map(str, ids))


def random_model(config: Any) -> Any:
    torch.manual_seed(1)
    config = copy.deepcopy(config)
    config.initializer_range = 0.3
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, END, 0
    return AutoModelForCausalLM.from_config(config).eval()


def some(size: int, seed: int, top: int = VOCABULARY) -> list[int]:
    return torch.randint(3, top, (size,), generator=torch.Generator().manual_seed(seed)).tolist()


def families(top: int = VOCABULARY) -> list[list[int]]:
    """Prompts of two families, one alone, one that is short, and one that stands twice."""
    first, second, alone = some(30, 1, top), some(17, 2, top), some(23, 3, top)
    rows = [first + some(n, n, top) for n in (4, 2, 5)] + [second + some(n, n, top) for n in (3, 6, 1)]
    return [*rows, alone, some(2, 9, top), first + some(4, 4, top)]


def by_generate(model: Any, prompts: list[list[int]], size: int) -> list[list[int]]:
    """What transformers draws greedily, each prompt alone."""
    config = GenerationConfig(do_sample=False, max_new_tokens=size, eos_token_id=END, pad_token_id=0)
    rows = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        rows.append(model.generate(input_ids=ids, attention_mask=mask, generation_config=config)[0, len(prompt) :])
    return [row.tolist() for row in rows]


def drawn(model: Any, prompts: list[list[int]], temperature: float, size: int = 24) -> list[Any]:
    decoding = Decoding(temperature=temperature, max_tokens=size)
    return generation.generate(model, Letters(), prompts, range(len(prompts)), decoding)


@pytest.mark.parametrize("name", PLAIN)
def test_greedy_tokens_are_those_of_generate(name: str) -> None:
    model = random_model(PLAIN[name])
    assert remembers_all(model)
    assert plan(families()).heads
    assert [list(one.ids) for one in drawn(model, families(), 0)] == by_generate(model, families(), 24)


@pytest.mark.parametrize("name", OTHER)
def test_a_model_with_another_memory_is_left_to_generate(name: str) -> None:
    model = random_model(OTHER[name])
    assert not remembers_all(model)
    prompts = [some(9, 1), some(9, 2)]  # of one length, for Mamba reads padding too
    assert [list(one.ids) for one in drawn(model, prompts, 0)] == by_generate(model, prompts, 24)


def test_a_cache_of_a_fixed_size_is_left_to_generate() -> None:
    model = random_model(PLAIN["llama"])
    model.generation_config.cache_implementation = "static"
    assert not remembers_all(model)


def test_greedy_tokens_of_a_trained_model_are_those_of_generate(shared: Path) -> None:
    model, _ = load_causal(str(shared / "stories260K"))
    prompts = families(top=512)
    assert [list(one.ids) for one in drawn(model.eval(), prompts, 0, 60)] == by_generate(model, prompts, 60)


@pytest.mark.parametrize("name", ["llama", "gpt2", "neox", "bloom"])
def test_sampled_tokens_entropy_and_logprob_are_those_of_generate(name: str) -> None:
    model = random_model(PLAIN[name])
    model.get_output_embeddings().weight.data[END] *= 3  # so that rows end at different times
    ours = drawn(model, families() * 3, 1.0)
    decoding = Decoding(max_tokens=24)
    dice = TokenSampler(range(len(ours)), decoding, [END], model.device)
    with torch.inference_mode():
        generation._generate(model, 0, families() * 3, [END], dice)
    assert len({one.tokens for one in ours}) > 5
    assert [list(one.ids) for one in ours] == [
        row[:n].tolist() for row, n in zip(dice.ids, dice.tokens.tolist(), strict=True)
    ]
    assert [one.logprob for one in ours] == pytest.approx(dice.logprob.tolist(), abs=1e-3)
    entropies = [one.entropy * one.tokens for one in ours]
    assert entropies == pytest.approx(dice.entropy.tolist(), abs=3e-3)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_company_changes_nothing(size: int) -> None:
    model = random_model(PLAIN["llama"])
    model.get_output_embeddings().weight.data[END] *= 3
    together = drawn(model, families(), 1.0)
    decoding = Decoding(max_tokens=24)
    bounds = [*range(0, len(families()), size), len(families())]
    parts = [generation.generate(model, Letters(), families()[a:b], range(a, b), decoding) for a, b in pairwise(bounds)]
    assert [one.ids for part in parts for one in part] == [one.ids for one in together]


def test_what_prompts_share_is_read_once() -> None:
    model = random_model(PLAIN["llama"])
    read = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, given: read.append(given[0].numel()))
    head = some(100, 1)
    drawn(model, [head + some(6, n) for n in range(8)], 0, size=1)
    assert sum(read) <= 1 + 106 + 8 * 6


def test_ended_rows_are_dropped() -> None:
    model = random_model(PLAIN["llama"])
    model.get_output_embeddings().weight.data[END] *= 3
    read = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, given: read.append(len(given[0])))
    found = drawn(model, [some(5, n) for n in range(40)], 1.0, size=100)
    assert sum(read[2:]) < 1.3 * sum(one.tokens for one in found)


def test_a_plan_reads_no_more_than_it_must() -> None:
    shared = some(40, 1)
    alone = [some(30, n) for n in range(2, 6)]
    assert plan([[*shared, n] for n in range(4)]) == (1, [shared], [0] * 4)
    assert plan(alone) == (30, [], [0] * 4)
    assert plan([[*shared, n, 5] for n in range(4)] + [shared[:9]]) == (2, [shared], [0] * 5)
    assert prefix_decoding._tokens(plan(families())) < 0.8 * 9 * 35
