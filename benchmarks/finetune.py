"""How fast does finetune learn, beside transformers' Trainer and TRL's SFTTrainer on the same token ids?

    python benchmarks/finetune.py MODEL DATA -o docs/results/finetune-MODEL.json [--rows 64] [--repeats 5]

MODEL is `mid` (a Llama of 15 million parameters, vocabulary 30,522, from scratch; DATA is a file of HH pairs) or
`tiny` (the quickstart's base; DATA is the quickstart's scored.jsonl). Every arm begins with the same weights,
sees the same rows once and has its loss on completion tokens alone. The peers' batch sizes and grouping by
length are swept first, without TRL's defaults that cost half its speed on a processor (bf16, gradient
checkpointing); TRL with those defaults runs once, at its best batch size. Then all arms are timed in turns, the
order reversed every other time. Checkpoints are off everywhere. Needs `pip install irlhf[bench]`.
"""

import copy
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow
import torch
import transformers
from datasets import Dataset
from datasets.table import InMemoryTable
from side_by_side import finish, measure, options, told
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

import irlhf
from irlhf.engines.chat import Chat
from irlhf.engines.local import load_causal
from irlhf.engines.tiny import make_tiny
from irlhf.finetune import FinetuneSettings
from irlhf.finetune.batches import IGNORED, Encoded, Family, alone, together
from irlhf.finetune.rows import TrainingSet, read_training_set
from irlhf.finetune.trainer import Plan, trainer
from irlhf.records import as_messages, as_text

CONTEXT = {"mid": 512, "tiny": 256}
RATE = 5e-4
BATCHES = {"mid": (4, 16), "tiny": (8, 16, 32, 64, 128)}
_VOCABULARY = 30_522
_MID = {"hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6}

Run = Callable[[Any], float]  # trains a model over the rows once and returns the seconds


@dataclass(frozen=True)
class Bench:
    """What all arms train on."""

    rows: list[Encoded]
    padding: int  # token id
    folder: Path

    @property
    def completion(self) -> int:
        """Tokens that are learnt."""
        return sum(len(row.completion) for row in self.rows)


@dataclass(frozen=True)
class Setting:
    """How a peer is run."""

    batch: int  # rows
    grouped: bool  # by length
    defaults: bool = False  # TRL's own: bf16 and gradient checkpointing

    def __str__(self) -> str:
        return f"{self.batch}{', grouped' if self.grouped else ''}"


def main() -> None:
    """Sweep, time, write the result."""
    parser = options(__doc__ or "")
    parser.add_argument("model", choices=sorted(CONTEXT))
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        model, bench = _material(given.model, given.data, given.rows, Path(folder))
        arms, swept = _swept(given.model, model, bench)
        seconds = measure({name: partial(run, model) for name, run in arms.items()}, given.repeats)
    against = {peer: {name: seconds[name] for name in seconds if name in ("irlhf", peer)} for peer in PEERS}
    peak, work = _peak(), _work(model, bench.rows)
    rate = bench.completion / min(seconds["irlhf"])
    found = {
        "model": f"{given.model}, {sum(one.numel() for one in model.parameters()):,} parameters",
        "rows": len(bench.rows),
        "tokens": sum(map(len, bench.rows)),
        "completion tokens": bench.completion,
        "trl": version("trl"),
        "swept": swept,
        **{f"against {peer}": told(mine, bench.completion, "irlhf") for peer, mine in against.items()},
        "matmul GFLOP/s": round(peak),
        "share of matmul peak": round(work * rate / bench.completion / peak, 3),
    }
    finish(given.output, found)


def _material(kind: str, data: Path, count: int, folder: Path) -> tuple[Any, Bench]:
    """Return the base, and the rows as `irlhf finetune` encodes them."""
    source = data
    if kind == "mid":
        (folder / "rewards.yaml").write_text("rewards:\n  length: {scorer: length}\n")
        irlhf.prepare([str(data)], str(folder / "examples.jsonl"))
        irlhf.score(str(folder / "examples.jsonl"), str(folder / "rewards.yaml"), str(folder / "scored.jsonl"))
        source = folder / "scored.jsonl"
    training = read_training_set(source, "", 0)
    settings = FinetuneSettings(drop=0.1, template="reward-end")
    policy = training.policy(kind, settings)
    model, tokenizer = _mid(training, folder) if kind == "mid" else _tiny(training, policy)
    chat = Chat(tokenizer, policy.template, policy.names)
    rows = []
    for example, asked in training.asked(policy, training.train, settings):
        completion = chat.completion(example.completion, example.prompt)
        room = CONTEXT[kind] - len(completion)
        if completion and room > len(completion):
            rows.append(Encoded(chat.prompt(example.prompt, asked, room).ids, completion, example.cluster))
        if len(rows) == count:
            break
    return model, Bench(rows, tokenizer.pad_token_id, folder)


def _mid(training: TrainingSet, folder: Path) -> tuple[Any, Any]:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel()
    texts = (as_text(one.prompt) + as_text(one.completion) for one in training.train)
    specials = ["<pad>", "<s>", "</s>"]
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=_VOCABULARY, special_tokens=specials))
    tokens = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=_VOCABULARY, max_position_embeddings=512, tie_word_embeddings=True, **_MID)
    LlamaForCausalLM(config).save_pretrained(folder / "mid")
    tokens.save_pretrained(folder / "mid")
    return load_causal(str(folder / "mid"))


def _tiny(training: TrainingSet, policy: Any) -> tuple[Any, Any]:
    conversations = (as_messages(one.prompt) + as_messages(one.completion, "assistant") for one in training.train)
    return make_tiny(conversations, policy.template.vocabulary(policy.names), CONTEXT["tiny"], 0)


def _swept(kind: str, model: Any, bench: Bench) -> tuple[dict[str, Run], dict[str, dict[str, float]]]:
    """Return every arm at its best setting, and what the sweep found (completion tokens/s, one run each)."""
    shared = together(bench.rows, 2 * max(map(len, bench.rows)), min(BATCHES[kind]))
    settings = [Setting(batch, grouped) for batch in BATCHES[kind] for grouped in (True, False)]
    runs: dict[str, dict[str, Run]] = {
        "irlhf": {
            f"{batch}{told_}": partial(_ours, bench, families, batch)
            for batch in BATCHES[kind]
            for told_, families in ((", prompts shared", shared), ("", alone(bench.rows)))
        }
    }
    runs |= {peer: {str(one): partial(run, bench, one) for one in settings} for peer, run in PEERS.items()}
    best: dict[str, Run] = {}
    swept: dict[str, dict[str, float]] = {}
    for arm, mine in runs.items():
        swept[arm] = {name: round(bench.completion / run(model)) for name, run in mine.items()}
        chosen = max(swept[arm], key=swept[arm].__getitem__)
        best[arm] = mine[chosen]
        print(arm, swept[arm], flush=True)
    slow = replace(next(one for one in settings if str(one) == chosen), defaults=True)
    swept["TRL with its defaults"] = {chosen: round(bench.completion / _trl(bench, slow, model))}
    return best, swept


def _ours(bench: Bench, families: list[Family], batch: int, model: Any) -> float:
    plan = Plan(math.ceil(len(bench.rows) / batch), batch * len(families) / len(bench.rows), RATE, 0)
    made = trainer(copy.deepcopy(model), bench.padding, (families, []), bench.folder, plan)
    made.args.save_strategy = transformers.trainer_utils.SaveStrategy.NO
    return _timed(made)


def _trainer(bench: Bench, setting: Setting, model: Any) -> float:
    """Time the plain Trainer: the model's own loss on labels that leave the prompt out."""

    def collate(given: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(one["input_ids"]) for one in given)

        def padded(name: str, filling: int) -> torch.Tensor:
            return torch.tensor([one[name] + [filling] * (width - len(one[name])) for one in given])

        return {
            "input_ids": padded("input_ids", bench.padding),
            "attention_mask": padded("attention_mask", 0),
            "labels": padded("labels", IGNORED),
        }

    data = [
        {
            "input_ids": row.prompt + row.completion,
            "attention_mask": [1] * len(row),
            "labels": [IGNORED] * len(row.prompt) + row.completion,
            "length": len(row),
        }
        for row in bench.rows
    ]
    arguments = TrainingArguments(**_shared(bench, setting), remove_unused_columns=False, bf16=False)
    return _timed(
        Trainer(model=copy.deepcopy(model), args=arguments, train_dataset=_dataset(data), data_collator=collate)
    )


def _trl(bench: Bench, setting: Setting, model: Any) -> float:
    """Time TRL on the same ids, with its loss on the completion alone."""
    data = [
        {"input_ids": row.prompt + row.completion, "completion_mask": [0] * len(row.prompt) + [1] * len(row.completion)}
        for row in bench.rows
    ]
    quick = {} if setting.defaults else {"bf16": False, "gradient_checkpointing": False}
    config = SFTConfig(**_shared(bench, setting), completion_only_loss=True, max_length=None, **quick)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), pad_token="<pad>", eos_token="</s>")
    made = SFTTrainer(model=copy.deepcopy(model), args=config, train_dataset=_dataset(data), processing_class=tokenizer)
    return _timed(made)


def _shared(bench: Bench, setting: Setting) -> dict[str, Any]:
    return {
        "output_dir": str(bench.folder),
        "per_device_train_batch_size": setting.batch,
        "num_train_epochs": 1,
        "learning_rate": RATE,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "optim": "adamw_torch_fused",
        "seed": 0,
        "dataloader_pin_memory": False,
        "use_cpu": not torch.cuda.is_available(),
        "train_sampling_strategy": "group_by_length" if setting.grouped else "random",
    }


def _dataset(rows: list[dict[str, Any]]) -> Dataset:
    """Return rows as TRL wants them; named by hand, because naming by content fails with some versions of pyarrow."""
    return Dataset(InMemoryTable(pyarrow.Table.from_pylist(rows)), fingerprint="rows")


def _timed(made: Any) -> float:
    started = time.perf_counter()
    made.train()
    return time.perf_counter() - started


# The last one is also run with its own defaults.
PEERS: dict[str, Callable[[Bench, Setting, Any], float]] = {"Trainer": _trainer, "TRL": _trl}


def _peak() -> float:
    """Return the machine's GFLOP/s in single precision on matrices of 2,048 (median of 5)."""
    a = torch.rand(2048, 2048)
    took = []
    for _ in range(6):
        started = time.perf_counter()
        torch.mm(a, a)
        took.append(time.perf_counter() - started)
    return 2 * 2048**3 / median(took[1:]) / 1e9


def _work(model: Any, rows: Sequence[Encoded]) -> float:
    """Return the GFLOP that the rows need at least: 6 a weight and token, the head on completion tokens alone.

    (Kaplan et al. 2020, arXiv 2001.08361, section 2.1; attention between tokens is left out.)
    """
    head = model.get_output_embeddings().weight
    tied = head is model.get_input_embeddings().weight
    body = sum(one.numel() for one in model.parameters()) - head.numel() * (1 if tied else 2)
    completion = sum(len(row.completion) for row in rows)
    return float(6 * (body * sum(map(len, rows)) + head.numel() * completion) / 1e9)


if __name__ == "__main__":
    main()
