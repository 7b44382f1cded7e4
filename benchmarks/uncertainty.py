"""Compare estimates and bounds of entropy and KL with the values from full distributions, on the same samples.

    python benchmarks/uncertainty.py MODEL [--samples 2000] -o docs/results/uncertainty.json

A model is sampled with one prompt. The reference is the same model with another prompt: one whose distant part differs
(`near`), and one without the first sentence (`far`). The exact values are the mean entropy per token, with equal
weights, and the KL summed over a completion, both from all logits.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from irlhf.core.entropy_bounds import bracket, k3
from irlhf.models.generation import generate
from irlhf.models.loading import fitting_threads, load_causal
from irlhf.models.token_logprobs import logprobs
from irlhf.models.token_sampler import Decoding

TOPS = (1, 5, 20)
PAIRS = {
    "near": ("Lily was very happy. Tom saw a big dog. He", "Lily was very sad. Tom saw a big dog. He"),
    "far": ("Tom was very sad. One day, he", "One day, he"),
}
TOKENS = 32  # of a completion at most
_BATCH = 50


def whole(model: Any, prompt: Sequence[int], ids: Sequence[int]) -> torch.Tensor:
    """Return the log-probabilities of every token of the vocabulary at each place of a completion."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    found: torch.Tensor = logits.double().log_softmax(-1)
    return found


def one_pair(model: Any, tokenizer: Any, texts: tuple[str, str], samples: int) -> dict[str, Any]:
    """Return the figures of one pair of prompts."""
    asked, unasked = (tokenizer(text)["input_ids"] for text in texts)
    drawn = []
    for start in range(0, samples, _BATCH):
        drawn += generate(model, tokenizer, [asked] * _BATCH, range(start, start + _BATCH), Decoding(max_tokens=TOKENS))
    read = logprobs(model, [(unasked, one.ids) for one in drawn])
    entropies: list[float] = []
    ends: dict[int, list[tuple[float, float]]] = {k: [] for k in TOPS}
    exact = []
    for one in drawn:
        own, other = (whole(model, prompt, one.ids) for prompt in (asked, unasked))
        entropies += (-(own.exp() * own).sum(-1)).tolist()
        exact.append(float((own.exp() * (own - other)).sum()))
        for k in TOPS:
            for top in own.topk(k).values.tolist():
                low, high = bracket(top, own.shape[1])
                ends[k].append((low, high if high is not None else math.inf))
    assert all(low <= true <= high for k in TOPS for (low, high), true in zip(ends[k], entropies, strict=True))
    means = {k: [math.fsum(side) / len(entropies) for side in zip(*ends[k], strict=True)] for k in TOPS}
    kls = {
        "exact": exact,
        "k1": [math.fsum(one.logprobs) - math.fsum(numbers) for one, numbers in zip(drawn, read, strict=True)],
    }
    kls["k3"] = [k3(one.logprobs, numbers) for one, numbers in zip(drawn, read, strict=True)]
    surprisal = -math.fsum(number for one in drawn for number in one.logprobs)
    return {
        "prompts": texts,
        "tokens": len(entropies),
        "entropy": {"exact": math.fsum(entropies) / len(entropies), "sampled": surprisal / len(entropies)},
        "between": {str(k): {"low": low, "high": high} for k, (low, high) in means.items()},
        "kl": {name: spread(numbers) for name, numbers in kls.items()},
    }


def spread(numbers: Sequence[float]) -> dict[str, float]:
    """Return a mean, its standard error and the standard deviation of one completion."""
    found = torch.tensor(numbers, dtype=torch.double)
    deviation = float(found.std())
    return {"mean": float(found.mean()), "error": deviation / math.sqrt(len(numbers)), "deviation": deviation}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--samples", type=int, default=2000, help=f"a multiple of {_BATCH}")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    model, tokenizer = load_causal(given.model)
    with fitting_threads(model):
        found = {name: one_pair(model.eval(), tokenizer, texts, given.samples) for name, texts in PAIRS.items()}
    what = {"model": Path(given.model).name, "vocabulary": model.config.vocab_size, "samples": given.samples}
    given.output.write_text(
        json.dumps({**what, "max_tokens": TOKENS, "pairs": found}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
