"""Time a batch of samples and a training step of a model, to estimate the duration of a run."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from irlhf.models.adapters import with_lora
from irlhf.models.description import describe
from irlhf.models.generation import generate
from irlhf.models.loading import device, fitting_threads, load_causal
from irlhf.models.precision import AUTO, resolve_precision
from irlhf.models.prompt_encoding import PromptEncoder
from irlhf.models.token_sampler import Decoding
from irlhf.policy.templates import PLAIN, find_template
from irlhf.training.batching import Collator, Encoded, Family, compared
from irlhf.training.losses import comparison_loss, sequence_sums, token_losses
from irlhf.training.policy_run import shares_prompts

_BATCH = 64  # samples
_TOKENS = 12  # new tokens of each timed sample
_ROWS = 8  # per training step
_RANK = 32
_TARGET = " plain: 0.9 personal: 0.5"  # about as long as the reward lines of a prompt
# Cost of the evaluations of a run, in training steps per validation prompt.
_STEPS_A_VALIDATION_PROMPT = 2.0


@dataclass(frozen=True)
class Pace:
    """Seconds per sample and per training step of a model on this machine."""

    a_sample: float
    a_step: float

    def sampling(self, samples: int) -> float:
        """Return the seconds for `samples` samples."""
        return self.a_sample * samples

    def training(self, steps: int, validation_prompts: int) -> float:
        """Return the seconds for `steps` training steps, including the evaluations on validation prompts."""
        return self.a_step * (steps + _STEPS_A_VALIDATION_PROMPT * validation_prompts)


def measure_pace(name: str, prompts: Sequence[str], max_tokens: int) -> Pace:
    """Load a model and time it on these prompts. Raises ConfigError if it cannot be loaded."""
    described = describe(name)
    dtype = resolve_precision(AUTO, described.parameters, described.width, device())
    model, tokenizer = load_causal(name, dtype)
    chat = PromptEncoder(tokenizer, find_template(PLAIN), ())
    room = described.context - max_tokens
    encoded = [chat.prompt(prompt, {}, room).ids for prompt in prompts[: _BATCH // 8]]
    with fitting_threads(model):
        a_sample = _sample_seconds(model.eval(), tokenizer, encoded, max_tokens)
        del model
        model, _ = load_causal(name, torch.float32)
        adapted = with_lora(model, _RANK, name)
        bf16 = dtype == torch.bfloat16
        a_step = _step_seconds(adapted, tokenizer, encoded, (max_tokens, bf16))
    return Pace(a_sample, a_step)


def _sample_seconds(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_tokens: int) -> float:
    """Return the seconds per sample, extrapolated from a batch with few new tokens."""
    tokens = min(_TOKENS, max_tokens)
    batch = sorted([prompt for prompt in prompts for _ in range(_BATCH // len(prompts))], key=len)
    generate(model, tokenizer, batch[:8], range(8), Decoding(max_tokens=2))  # the first call prepares its kernels
    started = time.monotonic()
    generate(model, tokenizer, batch, range(len(batch)), Decoding(max_tokens=tokens))
    return (time.monotonic() - started) / len(batch) * max_tokens / tokens


def _step_seconds(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], settings: tuple[int, bool]) -> float:
    """Return the seconds of one forward and backward pass of the objective contrast."""
    max_tokens, bf16 = settings
    target = tokenizer(_TARGET, add_special_tokens=False)["input_ids"]
    rng = random.Random(0)
    vocabulary = len(tokenizer)
    families = []
    for prompt in prompts[: _ROWS // 2]:
        completions = [[rng.randrange(vocabulary) for _ in range(max_tokens)] for _ in range(2)]
        families.append(_family(prompt, target, completions))
    shares = shares_prompts(model, tokenizer.pad_token_id, families)
    collate = Collator(tokenizer.pad_token_id, shares=shares)
    batches = [
        {name: value.to(model.device) for name, value in collate(part).items()} for part in (families[:1], families)
    ]
    model.train()
    for batch in batches:  # the first prepares the kernels
        started = time.monotonic()
        with torch.autocast(device(), torch.bfloat16, enabled=bf16):
            losses, sequences = token_losses(model, model.get_output_embeddings(), batch)
            scores = -sequence_sums(losses, sequences, len(batch["own"]))
            loss = losses.mean() + comparison_loss(scores, batch["comparisons"])
        torch.autograd.backward(loss)
        float(loss.detach())  # waits for the accelerator
    return time.monotonic() - started


def _family(prompt: Sequence[int], target: Sequence[int], completions: Sequence[list[int]]) -> Family:
    """Return two completions of a prompt, each under two targets."""
    prompts = [[*prompt, *target], [*prompt, *reversed(target)]]
    order = ((0, 0), (1, 0), (1, 1), (0, 1))  # completion, target
    members = [Encoded(prompts[number], completions[completion]) for completion, number in order]
    return compared(members, (0, 2), ((0, 1), (2, 3)))
