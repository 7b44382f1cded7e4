"""Reward models: small random checkpoints of the real classes, read without running anybody's code."""

import json
import pickle
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import example, process, write
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from irlhf.core.errors import BackendError, ConfigError
from irlhf.core.example import Example
from irlhf.policy.rewards_file import Reward
from irlhf.scoring.cache import Cache
from irlhf.scoring.runner import ScorerRunner, scorer_groups

TEXT = "[PAD] [UNK] [CLS] [SEP] <s> </s> how do i repot a fern in spring one size up no water it well user assistant"
WORDS = TEXT.split()
LABELS = {"id2label": {0: "bad", 1: "fair", 2: "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
CHAT = "{{ bos_token }}{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {{ eos_token }} {% endfor %}"
EXAMPLES = [
    Example(id="a", prompt="how do i repot a fern", completion="in spring"),
    Example(id="b", prompt="how", completion="no"),
    Example(id="c", prompt="how do i water it", completion="one size up in spring " * 12),
    Example(id="d", prompt="a fern", completion="well"),
]


def tokenizer(**tokens: Any) -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if "cls_token" in tokens:
        words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", model_max_length=32, **tokens)


def bert(folder: Path, **config: Any) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    made = BertForSequenceClassification(
        BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **{"initializer_range": 0.5, **sizes, **config})
    )
    made.save_pretrained(folder)
    kinds = ["input_ids", "token_type_ids", "attention_mask"]
    kept = tokenizer(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", model_input_names=kinds)
    kept.save_pretrained(folder)
    return folder


def llama(folder: Path, chat: str = CHAT, **config: Any) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    made = LlamaForSequenceClassification(
        LlamaConfig(vocab_size=len(WORDS), initializer_range=0.5, num_labels=1, **sizes, **config)
    )
    made.save_pretrained(folder)
    kept = tokenizer(bos_token="<s>", eos_token="</s>", **({"pad_token": "[PAD]"} if "pad_token_id" in config else {}))
    kept.chat_template = chat
    kept.save_pretrained(folder)
    return folder


def panel(folder: Path, **spec: str) -> ScorerRunner:
    kept = tempfile.mkdtemp()
    return ScorerRunner(
        scorer_groups({"a": Reward(scorer=f"hf:{folder}", **spec)}, Path()), Cache(Path(kept) / "replies.sqlite")
    )


def reader(asked: ScorerRunner) -> Any:
    return asked.groups[0].scorer._reader  # type: ignore[attr-defined]


def said(asked: ScorerRunner, examples: list[Example]) -> list[float]:
    return [answer["a"] for answer in asked(examples, lambda rows: None)]  # type: ignore[index]


def logits(folder: Path, **spec: str) -> list[float]:
    return said(panel(folder, **spec), EXAMPLES)


def alone(folder: Path, ids: list[int], **more: list[int]) -> list[float]:
    """What the model itself says of one row of tokens, without padding."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        rows = {name: torch.tensor([row]) for name, row in {"input_ids": ids, **more}.items()}
        found: list[float] = model(**rows).logits[0].tolist()
    return found


def test_a_pair_classifier_reads_prompt_and_completion(tmp_path: Path) -> None:
    folder = bert(tmp_path / "rm", num_labels=1)
    first, second = ([WORDS.index(word) for word in text.split()] for text in ("how do i repot a fern", "in spring"))
    ids = [2, *first, 3, *second, 3]
    expected = alone(folder, ids, token_type_ids=[0] * 8 + [1] * 3)
    assert logits(folder)[0] == pytest.approx(expected[0], abs=1e-5)


@pytest.mark.parametrize("label", ["bad", "fair", "good"])
def test_a_label_names_the_output_that_is_read(label: str, tmp_path: Path) -> None:
    folder = bert(tmp_path / "rm", **LABELS)
    all_labels = {name: logits(folder, label=name) for name in ("bad", "fair", "good")}
    ids = [2, WORDS.index("how"), 3, WORDS.index("no"), 3]
    expected = alone(folder, ids, token_type_ids=[0, 0, 0, 1, 1])
    assert all_labels[label][1] == pytest.approx(expected[["bad", "fair", "good"].index(label)], abs=1e-5)


@pytest.mark.parametrize(
    ("spec", "reason"), [({}, r"3 numbers \(.*; choose one with `label:`"), ({"label": "godo"}, "did you mean 'good'")]
)
def test_a_label_that_is_missing_is_asked_for(spec: dict[str, str], reason: str, tmp_path: Path) -> None:
    folder = bert(tmp_path / "rm", **LABELS)
    with pytest.raises(ConfigError, match=reason):
        logits(folder, **spec)


def chat_ids(item: Example) -> list[int]:
    text = f"<s>user {item.prompt} </s> assistant {item.completion} </s> "
    known = [WORDS.index(word) for word in text.replace("<s>", "<s> ").split()]
    return known[-32:]


@pytest.mark.parametrize("padding", [{"pad_token_id": 0}, {}])
def test_a_chat_classifier_judges_as_the_model_alone_does(padding: dict[str, int], tmp_path: Path) -> None:
    folder = llama(tmp_path / "rm", **padding)
    expected = [alone(folder, chat_ids(item))[0] for item in EXAMPLES]
    assert logits(folder) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("make", [bert, llama])
def test_company_in_the_batch_changes_nothing(make: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "rm", **({"num_labels": 1} if make is bert else {"pad_token_id": 0}))
    scorer = reader(panel(folder))
    rows = [scorer.shown(item.prompt, item.completion) for item in EXAMPLES]
    together = scorer.logits(rows * 9)
    one_by_one = [scorer.logits([row])[0] for row in rows] * 9
    assert [one for (one,) in together] == pytest.approx([one for (one,) in one_by_one], abs=1e-5)


@pytest.mark.parametrize("make", [bert, llama])
def test_equal_texts_are_read_once_and_batches_stay_within_the_budget(make: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "rm", **({"num_labels": 1} if make is bert else {"pad_token_id": 0}))
    scorer = panel(folder)
    reader(scorer).budget = 40
    read: list[torch.Size] = []
    inner = reader(scorer).model.get_input_embeddings()
    inner.register_forward_pre_hook(lambda _, given: read.append(given[0].shape))
    copies = [replace(item, id=f"{item.id}{n}") for n in range(5) for item in EXAMPLES]
    assert said(scorer, copies) == said(scorer, EXAMPLES) * 5
    once = list(read)
    assert sum(rows for rows, _ in once) == len(EXAMPLES)
    assert 1 < len(once) < len(EXAMPLES)
    assert all(rows == 1 or rows * width <= 40 for rows, width in once)


def test_weights_in_a_pickle_are_refused_and_never_run(tmp_path: Path) -> None:
    folder = bert(tmp_path / "rm", num_labels=1)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap()))
    with pytest.raises(ConfigError, match="safetensors"):
        logits(folder)
    assert not (tmp_path / "pwned").exists()


class _Trap:
    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, ("pwned", "w")


def test_code_in_a_model_folder_is_refused_without_a_question(tmp_path: Path) -> None:
    folder = tmp_path / "rm"
    folder.mkdir()
    (folder / "theirs.py").write_text("open('pwned', 'w')\n")
    mapping = {"AutoConfig": "theirs.C", "AutoModelForSequenceClassification": "theirs.M"}
    (folder / "config.json").write_text(json.dumps({"model_type": "theirs", "auto_map": mapping}))
    write(tmp_path / "in.jsonl", [example()])
    (tmp_path / "rewards.yaml").write_text(f"rewards: {{a: {{scorer: 'hf:{folder}'}}}}")
    done = process("score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl", given=b"y\ny\ny\n")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().count("\n") == 1
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("place", ["./none", "/none", "~/none", "nobody/none"])
def test_a_model_that_is_not_there_is_one_line(place: str, tmp_path: Path) -> None:
    # Without a network it is unknown whether the Hub has the model, so another try may help.
    with pytest.raises((ConfigError, BackendError)) as caught:
        scorer_groups({"a": Reward(scorer=f"hf:{place}")}, Path())
    assert "\n" not in str(caught.value)
