"""How fast are completions drawn, beside transformers' own batched `generate`?

    python benchmarks/sample.py [MODEL] [--repeats 5] -o RESULT.json

MODEL is a folder; without one a Llama of 15 million random parameters is made. Prompts are random tokens, 20 to
250 of them, with the target's 12 to 16 behind; eight targets of a prompt share its beginning. Decoding is greedy,
up to 64 tokens, and every arm must draw the very same tokens. Where lengths are ragged, every row is made to end
after 8 to 64 tokens, in both arms alike. The peer gets its prompts sorted by length in batches of 16, 64 and 256;
ours does all that `irlhf sample` does with tokens, entropy and logprob included, in batches of 64.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from side_by_side import finish, measure, options, told
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, LogitsProcessor

from irlhf.models.loading import load_causal
from irlhf.models.prefix_decoding import decode, padded
from irlhf.models.token_sampler import Decoding, TokenSampler

TOKENS = 64  # drawn at most
TARGETS = 8
BATCHES = (16, 64, 256)
BATCH = 64  # irlhf sample's default
FIRST = 10  # token ids below may be special
END = 2
Prompts = list[list[int]]


class Ending(LogitsProcessor):  # type: ignore[misc]
    """Makes every row of a batch end after its own number of tokens."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = torch.tensor(sizes)
        self.step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores, changed in place where a row is due."""
        self.step += 1
        scores[self.sizes <= self.step, END] = torch.finfo(scores.dtype).max
        return scores


class EndingDice(TokenSampler):
    """Dice that make every row end after its own number of tokens."""

    sizes: torch.Tensor

    def draw(self, scores: torch.Tensor) -> torch.Tensor:
        """Draw, with the scores changed in place where a row is due."""
        scores[self.sizes[self.rows] <= self.step + 1, END] = 1e4
        return super().draw(scores)


def random_llama() -> Any:
    """Return a Llama of 15 million parameters, most of them in its vocabulary."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 288, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 768}
    return LlamaForCausalLM(LlamaConfig(vocab_size=30522, tie_word_embeddings=True, **sizes))


def prompts(count: int, targets: int, vocabulary: int) -> Prompts:
    """Return `count` prompts, each with every one of its targets behind, in order of length."""
    rng = random.Random(count)

    def some(size: int) -> list[int]:
        return [rng.randrange(FIRST, vocabulary) for _ in range(size)]

    heads = [some(min(250, max(20, round(rng.lognormvariate(4.4, 0.6))))) for _ in range(count)]
    return [head + some(rng.randint(12, 16)) for head in sorted(heads, key=len) for _ in range(targets)]


def ours(model: Any, rows: Prompts, sizes: list[int]) -> Prompts:
    """Draw as irlhf does, each row as many tokens as its size says."""
    found = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        dice = EndingDice(range(len(batch)), Decoding(temperature=0, max_tokens=TOKENS), [END], model.device)
        dice.sizes = torch.tensor(sizes[start : start + BATCH])
        with torch.inference_mode():
            decode(model, batch, dice)
        found += [ids[:count].tolist() for ids, count in zip(dice.ids, dice.tokens.tolist(), strict=True)]
    return found


def theirs(model: Any, rows: Prompts, sizes: list[int], size: int) -> Prompts:
    """Draw as transformers does, in batches of `size`."""
    config = GenerationConfig(do_sample=False, max_new_tokens=TOKENS, eos_token_id=END, pad_token_id=0)
    found: Prompts = []
    for start in range(0, len(rows), size):
        ids, mask = padded(rows[start : start + size], model.device)
        ending = [Ending(sizes[start : start + size])]
        drawn = model.generate(
            input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=ending
        ).tolist()
        found += [row[ids.shape[1] :] for row in drawn]
    return [row[: row.index(END) + 1] if END in row else row for row in found]


def compare(model: Any, rows: Prompts, ragged: bool, repeats: int) -> dict[str, Any]:
    """Return tokens a second of ours and of the peer at each batch size."""
    rng = random.Random(1)
    sizes = [rng.randint(8, TOKENS) if ragged else TOKENS for _ in rows]
    expected = ours(model, rows, sizes)
    arms = {"irlhf": lambda: ours(model, rows, sizes)}
    for size in (one for one in BATCHES if one <= len(rows)):
        same = sum(a == b for a, b in zip(expected, theirs(model, rows, sizes, size), strict=True))
        if same < len(rows) - len(rows) // 100:  # two tokens may be equally likely but for the last bit
            raise SystemExit(f"{len(rows) - same} of {len(rows)} completions differ from generate's")
        arms[f"generate {size}"] = lambda size=size: theirs(model, rows, sizes, size)
    tokens = sum(map(len, expected))
    return {"rows": len(rows), "tokens": tokens, **told(measure(arms, repeats), tokens, "irlhf")}


def main() -> None:
    """Measure three loads."""
    parser = options(__doc__ or "")
    parser.add_argument("model", nargs="?", default="")
    parser.add_argument("--prompts", type=int, default=32, help="with 8 targets each; 8 times as many with one")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = (load_causal(given.model)[0] if given.model else random_llama()).eval()
    vocabulary = model.config.vocab_size
    many = prompts(given.prompts, TARGETS, vocabulary)
    single = prompts(given.prompts * TARGETS, 1, vocabulary)
    found = {
        "model": Path(given.model).name or "random Llama, 15M",
        "eight targets, ragged": compare(model, many, True, given.repeats),
        "eight targets, all of 64 tokens": compare(model, many, False, given.repeats),
        "one target, ragged": compare(model, single, True, given.repeats),
    }
    finish(given.output, found)


if __name__ == "__main__":
    main()
