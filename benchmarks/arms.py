"""What irlhf, transformers' Trainer and TRL's SFTTrainer are given when their trainings are held side by side."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments

import irlhf
from irlhf.core.example import as_messages, as_text
from irlhf.models.loading import load_causal
from irlhf.models.prompt_encoding import PromptEncoder
from irlhf.models.tiny import make_tiny
from irlhf.training.batching import IGNORED, Encoded, Family, alone, together
from irlhf.training.callbacks import TrainingPlan
from irlhf.training.settings import BUCKETED, FinetuneSettings
from irlhf.training.trainer import trainer
from irlhf.training.training_set import Row, TrainingSet, read_training

try:
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from trl import SFTConfig, SFTTrainer
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is not installed; the peers need: pip install 'irlhf[bench]'") from error

CONTEXT = {"mid": 512, "tiny": 256}
RATE = 5e-4
_VOCABULARY = 30_522
_MID = {"hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6}


@dataclass(frozen=True)
class Bench:
    """What all arms train on."""

    rows: list[Encoded]
    held_out: list[Encoded]
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
    more: Mapping[str, Any] = field(default_factory=dict)  # arguments of the Trainer

    def __str__(self) -> str:
        return f"{self.batch}{', grouped' if self.grouped else ''}"


def material(kind: str, data: Path, counts: tuple[int, int], folder: Path) -> tuple[Any, Bench]:
    """Return the base, and the rows to train on and to hold out as `irlhf finetune` encodes them."""
    source = data
    if kind == "mid":
        (folder / "rewards.yaml").write_text("rewards:\n  length: {scorer: length}\n")
        irlhf.prepare([str(data)], str(folder / "examples.jsonl"))
        irlhf.score(str(folder / "examples.jsonl"), str(folder / "rewards.yaml"), str(folder / "scored.jsonl"))
        source = folder / "scored.jsonl"
    training = read_training(source, FinetuneSettings(template="reward-end"))
    settings = FinetuneSettings(drop=0.1, template="reward-end")
    policy = training.policy(kind, settings)
    model, tokenizer = _mid(training, folder) if kind == "mid" else _tiny(training, policy)
    chat = PromptEncoder(tokenizer, policy.template, policy.names)
    rows, held_out = (
        list(islice(_encoded(chat, training.with_targets(policy, part, settings), CONTEXT[kind]), count))
        for part, count in zip((training.train, training.validation), counts, strict=True)
    )
    return model, Bench(rows, held_out, tokenizer.pad_token_id, folder)


def _encoded(chat: PromptEncoder, rows: Iterable[Row], context: int) -> Iterator[Encoded]:
    for example, asked in rows:
        completion = chat.completion(example.completion, example.prompt)
        room = context - len(completion)
        if completion and room > len(completion):
            yield Encoded(chat.prompt(example.prompt, asked, room).ids, completion, example.cluster)


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


def families(rows: list[Encoded], layout: str, most: int) -> list[Family]:
    """Return the rows as `irlhf finetune` lays them, at most so many of a prompt together."""
    return alone(rows) if layout == BUCKETED else together(rows, 2 * max(map(len, rows)), most)


def ours(bench: Bench, laid: list[Family], plan: TrainingPlan, model: Any) -> Trainer:
    """Return the Trainer of `irlhf finetune`; a plan without steps is for one pass, and its batch is of rows."""
    steps = plan.steps or math.ceil(len(bench.rows) / plan.batch)
    plan = replace(plan, steps=steps, batch=plan.batch * len(laid) / len(bench.rows))
    made = trainer(copy.deepcopy(model), bench.padding, (laid, []), bench.folder, plan)
    made.args.save_strategy = transformers.trainer_utils.SaveStrategy.NO
    return made


def plain(bench: Bench, setting: Setting, model: Any) -> Trainer:
    """Return the plain Trainer: the model's own loss on labels that leave the prompt out."""

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
    return Trainer(model=copy.deepcopy(model), args=arguments, train_dataset=_dataset(data), data_collator=collate)


def trl(bench: Bench, setting: Setting, model: Any) -> Trainer:
    """Return TRL's on the same ids, with its loss on the completion alone."""
    data = [
        {"input_ids": row.prompt + row.completion, "completion_mask": [0] * len(row.prompt) + [1] * len(row.completion)}
        for row in bench.rows
    ]
    quick = {} if setting.defaults else {"bf16": False, "gradient_checkpointing": False}
    config = SFTConfig(**_shared(bench, setting), completion_only_loss=True, max_length=None, **quick)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), pad_token="<pad>", eos_token="</s>")
    return SFTTrainer(model=copy.deepcopy(model), args=config, train_dataset=_dataset(data), processing_class=tokenizer)


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
        **setting.more,
    }


def _dataset(rows: list[dict[str, Any]]) -> Dataset:
    """Return rows as TRL wants them; named by hand, because naming by content fails with some versions of pyarrow."""
    return Dataset(InMemoryTable(pyarrow.Table.from_pylist(rows)), fingerprint="rows")


# The last one is also run with its own defaults.
PEERS: dict[str, Callable[[Bench, Setting, Any], Trainer]] = {"Trainer": plain, "TRL": trl}
