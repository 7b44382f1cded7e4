"""What of a conversation a classifier is shown, token by token, and what of it no classifier can be shown."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import call, example, read, write
from test_classifier import (
    CHAT,
    EXAMPLES,
    LABELS,
    WORDS,
    alone,
    bert,
    chat_ids,
    llama,
    logits,
    panel,
    reader,
    tokenizer,
)
from tokenizers import processors
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Content, Example
from irlhf.models.classifier import transcript
from irlhf.scoring.scorers.base import Failure

TALK = [
    {"role": "system", "content": "no water"},
    {"role": "user", "content": "how"},
    {"role": "assistant", "content": "well"},
    {"role": "user", "content": "in spring"},
]
NO_BOS = CHAT.removeprefix("{{ bos_token }}")


def words(folder: Path, prompt: Content, completion: Content, **spec: str) -> str:
    ids = reader(panel(folder, **spec)).shown(prompt, completion)["input_ids"]
    return " ".join(WORDS[one] for one in ids)


@pytest.mark.parametrize(
    ("how", "shown"),
    [
        ("", "[CLS] how do i [SEP] no water [SEP]"),
        ("pair", "[CLS] how do i [SEP] no water [SEP]"),
        ("completion", "[CLS] no water [SEP]"),
        ("text", "[CLS] how do i no water [SEP]"),
        ("transcript", "[CLS] [UNK] how do i [UNK] [SEP] no water [SEP]"),
    ],
)
def test_a_pair_classifier_is_shown_both_texts_or_the_last(how: str, shown: str, tmp_path: Path) -> None:
    folder = bert(tmp_path / "rm", num_labels=1)
    assert words(folder, "how do i", "no water", **({"input": how} if how else {})) == shown


@pytest.mark.parametrize(
    ("how", "prompt", "shown"),
    [
        ("chat", "how", "<s> user how </s> assistant no </s>"),
        ("", "how", "<s> user how </s> assistant no </s>"),
        ("pair", "how", "how no"),
        ("completion", "how", "no"),
        (
            "chat",
            TALK,
            "<s> [UNK] no water </s> user how </s> assistant well </s> user in spring </s> assistant no </s>",
        ),
    ],
)
def test_a_chat_classifier_is_shown_the_conversation(how: str, prompt: Content, shown: str, tmp_path: Path) -> None:
    folder = llama(tmp_path / "rm", chat=CHAT.replace("{{ bos_token }}", "{{ bos_token }} "), pad_token_id=0)
    assert words(folder, prompt, "no", **({"input": how} if how else {})) == shown


def test_a_transcript_is_written_as_in_the_data_of_hh() -> None:
    assert transcript("How?") == "\n\nHuman: How?\n\nAssistant:"
    turns = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant", "user")]
    assert transcript(turns) == "\n\nsystem: s\n\nHuman: u\n\nAssistant: a\n\nHuman: u\n\nAssistant:"


TEMPLATED = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}size {{ completion }}"


def test_a_template_beside_the_rewards_file_writes_the_input(tmp_path: Path) -> None:
    folder = bert(tmp_path / "rm", num_labels=1)
    (tmp_path / "beaver.jinja").write_text(TEMPLATED)
    shown = words(folder, "how do i", "no water", input=str(tmp_path / "beaver.jinja"))
    assert shown == "[CLS] user how do i assistant no water size no water [SEP]"
    write(Path("in.jsonl"), [row.to_json() for row in EXAMPLES[:2]])
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(tmp_path / "beaver.jinja", home)
    (home / "rewards.yaml").write_text(f"rewards: {{a: {{scorer: 'hf:{folder}', input: beaver.jinja}}}}")
    found = []
    for text in (TEMPLATED, TEMPLATED, "{{ completion }}"):  # the second run reads the first one's replies
        (home / "beaver.jinja").write_text(text)
        outcome = call("score", "in.jsonl", "-r", home / "rewards.yaml", "-o", f"{len(found)}.jsonl")
        assert outcome.code == 0, outcome.err
        found.append([row["rewards"]["a"] for row in read(Path(f"{len(found)}.jsonl"))])
    assert found[0] == found[1] != found[2]
    assert found[2] == pytest.approx(logits(folder, input="completion")[:2], abs=1e-5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ prompt }} {{ answer }}", "'answer' is undefined"),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_a_template_that_fails_on_a_row_fails_that_row(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(text)
    (failure,) = failures(bert(tmp_path / "rm", num_labels=1), EXAMPLES[:1], input=str(tmp_path / "own.jinja"))
    assert failure.startswith(f"{tmp_path / 'own.jinja'} fails on this conversation ({reason}")


@pytest.mark.parametrize(
    ("shown", "content", "problem"),
    [
        ("pairs", None, "unknown input 'pairs'; did you mean 'pair'?"),
        ("none.jinja", None, "none.jinja: the input template cannot be read (No such file or directory)"),
        ("own.jinja", "\n", "own.jinja: the input template is empty"),
        ("own.jinja", "a\n{% if %}", "own.jinja:2: invalid Jinja ("),
    ],
)
def test_an_input_that_cannot_be_written_is_one_line(
    shown: str, content: str | None, problem: str, tmp_path: Path
) -> None:
    if content is not None:
        Path("own.jinja").write_text(content)
    folder = bert(tmp_path / "rm", num_labels=1)
    Path("rewards.yaml").write_text(f"rewards: {{a: {{scorer: 'hf:{folder}', input: {shown}}}}}")
    write(Path("in.jsonl"), [row.to_json() for row in EXAMPLES[:2]])
    outcome = call("score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl")
    assert (outcome.code, outcome.err.count("\n"), Path("out.jsonl").exists()) == (2, 1, False)
    assert problem in outcome.err


def test_messages_are_one_text_to_a_pair_classifier(tmp_path: Path) -> None:
    said = [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "fern"}]
    shown = words(bert(tmp_path / "rm", num_labels=1), TALK, said)
    assert shown == "[CLS] no water how well in spring [SEP] a fern [SEP]"


@pytest.mark.parametrize("chat", [CHAT.replace("{{ bos_token }}", "{{ bos_token }} "), NO_BOS])
def test_exactly_one_bos_where_the_tokenizer_adds_one(chat: str, tmp_path: Path) -> None:
    folder = llama(tmp_path / "rm", chat=chat, pad_token_id=0)
    kept = tokenizer(bos_token="<s>", eos_token="</s>", pad_token="[PAD]")
    added = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", WORDS.index("<s>"))])
    kept.backend_tokenizer.post_processor = added
    kept.chat_template = chat
    kept.save_pretrained(folder)
    assert words(folder, "how", "no") == "<s> user how </s> assistant no </s>"


@pytest.mark.parametrize(("how", "ends"), [("pair", "in spring [SEP]"), ("chat", "in spring </s>")])
def test_a_long_conversation_loses_its_beginning_and_keeps_its_end(how: str, ends: str, tmp_path: Path) -> None:
    folder = bert(tmp_path / "a", num_labels=1) if how == "pair" else llama(tmp_path / "b", pad_token_id=0)
    shown = words(folder, "how do i repot a fern " * 20, "in spring")
    assert len(shown.split()) == 32
    assert shown.endswith(ends)


def test_of_a_long_pair_the_prompt_loses_its_beginning_and_a_completion_that_fits_stays_whole(tmp_path: Path) -> None:
    folder = bert(tmp_path / "rm", num_labels=1)
    shown = words(folder, "how " * 20 + "fern", "no " * 24 + "well")
    assert shown == "[CLS] how how how fern [SEP] " + "no " * 24 + "well [SEP]"


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.slow)])  # a cluster's start
def test_score_counts_the_inputs_that_a_classifier_truncates(executor: str, tmp_path: Path) -> None:
    if executor == "ray":
        pytest.importorskip("ray", reason="--executor ray is an extra")
    folder = bert(tmp_path / "rm", num_labels=1)
    texts = [("how", "well"), ("how " * 40, "well"), ("how " * 50, "no"), ("how", "no " * 40)]
    rows = [example(i, prompt=prompt, completion=completion) for i, (prompt, completion) in enumerate(texts)]
    Path("rewards.yaml").write_text(f"rewards:\n  kind: {{scorer: 'hf:{folder}'}}\n")
    outcome = call(
        "score", write(Path("e.jsonl"), rows), "-r", "rewards.yaml", "-o", "s.jsonl", "--json", "--executor", executor
    )
    assert outcome.code == 0, outcome.err
    counts = {name.split(": ")[1]: n for name, n in json.loads(outcome.out).items() if name.startswith("inputs longer")}
    assert counts == {"prompts truncated": 2, "completions truncated": 1}
    assert "2 inputs longer than the 32 tokens of" in outcome.err


def test_a_completion_that_does_not_fit_alone_loses_its_beginning(tmp_path: Path) -> None:
    folder = bert(tmp_path / "rm", num_labels=1)
    assert words(folder, "how", "no " * 40 + "well") == "[CLS] how [SEP] " + "no " * 27 + "well [SEP]"


def failures(folder: Path, examples: list[Example], **spec: str) -> list[Any]:
    answers: list[Any] = panel(folder, **spec)(examples, lambda rows: None)  # type: ignore[assignment]
    return [one.reason if isinstance(one, Failure) else None for one in answers]


def test_a_text_without_a_token_fails_alone(tmp_path: Path) -> None:
    folder = llama(tmp_path / "rm", pad_token_id=0)
    empty = Example(id="x", prompt="how", completion="")
    assert failures(folder, [empty, *EXAMPLES[:2]], input="completion") == [
        "the text has no tokens",
        None,
        None,
    ]
    assert failures(folder, [empty], input="completion") == ["the text has no tokens"]


ALTERNATING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def test_a_conversation_that_the_template_refuses_fails_alone(tmp_path: Path) -> None:
    folder = llama(tmp_path / "rm", chat=ALTERNATING + CHAT, pad_token_id=0)
    first, second = failures(folder, [Example(id="x", prompt=TALK, completion="no"), EXAMPLES[1]])
    assert first == "the chat template rejects this conversation (System role not supported)"
    assert second is None


def test_null_beside_a_tool_call_is_an_empty_text(tmp_path: Path) -> None:
    chat = "{% for m in messages %}{{ 'a ' + m['content'] }}{% endfor %}"
    folder = llama(tmp_path / "rm", chat=chat, pad_token_id=0)
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    assert failures(folder, [Example(id="x", prompt=[*TALK, call], completion="no")]) == [None]


def test_rows_are_padded_with_what_the_model_takes_for_padding(tmp_path: Path) -> None:
    folder = llama(tmp_path / "rm", pad_token_id=0)
    kept = tokenizer(bos_token="<s>", eos_token="</s>")  # it would pad with </s>
    kept.chat_template = CHAT
    kept.save_pretrained(folder)
    assert logits(folder) == pytest.approx([alone(folder, chat_ids(item))[0] for item in EXAMPLES], abs=1e-5)


def test_a_tokenizer_without_a_mask_hides_the_padding_all_the_same(tmp_path: Path) -> None:
    folder = bert(tmp_path / "rm", num_labels=1)
    expected = logits(folder)
    kinds = ["input_ids", "token_type_ids"]
    tokenizer(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", model_input_names=kinds).save_pretrained(folder)
    assert logits(folder) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("pad", [-1, 0])
def test_positions_do_not_move_with_the_company(pad: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.5}
    config = GPT2Config(vocab_size=len(WORDS), num_labels=1, pad_token_id=pad, **sizes)
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "rm")
    kept = tokenizer(eos_token="</s>", pad_token="[PAD]", padding_side="left", model_input_names=["input_ids"])
    kept.save_pretrained(tmp_path / "rm")
    parts = [(str(item.prompt).split(), str(item.completion).split()) for item in EXAMPLES]
    texts = [first + second[-(32 - len(first)) :] for first, second in parts]
    expected = [alone(tmp_path / "rm", [WORDS.index(word) for word in text])[0] for text in texts]
    assert logits(tmp_path / "rm") == pytest.approx(expected, abs=1e-5)


def test_roberta_s_positions_begin_behind_the_padding(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(vocab_size=len(WORDS), max_position_embeddings=18, pad_token_id=1, num_labels=1, **sizes)
    RobertaForSequenceClassification(config).save_pretrained(tmp_path / "rm")
    kinds = ["input_ids", "attention_mask"]
    kept = tokenizer(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", model_input_names=kinds)
    kept.model_max_length = 10**30
    kept.save_pretrained(tmp_path / "rm")
    assert len(words(tmp_path / "rm", "how", "no " * 50).split()) == 16
    assert len(logits(tmp_path / "rm")) == len(EXAMPLES)


def _causal(folder: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(folder)


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])


def _wider(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))


def _speechless(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_causal, "weights are missing, so this is another kind of model (score.weight)"),
        (_cut, "no model of this kind in safetensors format"),
        (_wider, "no model of this kind in safetensors format"),
        (_speechless, "no tokenizer with a vocabulary"),
    ],
)
def test_a_model_that_is_not_whole_is_refused_and_never_made_up(spoil: Any, told: str, tmp_path: Path) -> None:
    folder = bert(tmp_path / "rm", num_labels=1)
    spoil(folder)
    with pytest.raises(ConfigError) as caught:
        logits(folder)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_that_share_a_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two labels have the same name"):
        logits(bert(tmp_path / "rm", id2label={0: "x", 1: "x"}, label2id={"x": 1}), label="x")


def test_a_config_that_is_no_json_is_one_line(tmp_path: Path) -> None:
    folder = bert(tmp_path / "rm", num_labels=1)
    (folder / "config.json").write_text("{nope")
    with pytest.raises(DataError, match="not JSON"):
        panel(folder)


@pytest.mark.parametrize("scorer", ["hf", "hf:"])
def test_a_model_without_a_name_is_asked_for(scorer: str) -> None:
    from irlhf.policy.rewards_file import Reward
    from irlhf.scoring.lookup import find

    with pytest.raises(ConfigError, match="a: hf needs a folder or a model on the hub"):
        find("a", Reward(scorer=scorer), Path())


FROM_THE_HUB = """
import sys
from pathlib import Path
from test_classifier import EXAMPLES
from irlhf.policy.rewards_file import Reward
from irlhf.scoring.lookup import find

for revision in sys.argv[1:]:
    spec = {"revision": revision} if revision else {}
    scorer = find("a", Reward(scorer="hf:some/model", **spec), Path())
    print(scorer.traits.identity, *(reply["LABEL_0"] for reply in scorer(EXAMPLES)))
"""


@pytest.mark.slow  # a whole process
def test_a_revision_of_the_hub_is_the_commit_that_is_loaded(tmp_path: Path) -> None:
    hub = tmp_path / "hub" / "models--some--model"
    commits = {"main": "a" * 40, "v2": "b" * 40}
    expected = {}
    for seed, (name, commit) in enumerate(commits.items()):
        folder = bert(hub / "snapshots" / commit, num_labels=1) if not seed else hub / "snapshots" / commit
        if seed:
            shutil.copytree(hub / "snapshots" / commits["main"], folder)
            _shift(folder)
        (hub / "refs").mkdir(exist_ok=True)
        (hub / "refs" / name).write_text(commit)
        expected[name] = logits(folder)
    (tmp_path / "ask.py").write_text(FROM_THE_HUB)
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "PYTHONPATH": paths}
    asked = {"": "main", "main": "main", "v2": "v2", commits["v2"]: "v2"}
    command = [sys.executable, "ask.py", *asked]
    done = subprocess.run(command, env=env, capture_output=True, timeout=120, check=True, text=True)
    for line, name in zip(done.stdout.splitlines(), asked.values(), strict=True):
        kind, model, commit, *found = line.split()
        assert (kind, model, commit) == ("hf", "some/model", commits[name])
        assert [float(one) for one in found] == pytest.approx(expected[name], abs=1e-6)
    assert expected["main"] != pytest.approx(expected["v2"], abs=1e-3)


def _shift(folder: Path) -> None:
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.bias += 1
    model.save_pretrained(folder)


def test_a_label_is_found_by_the_name_in_the_config(tmp_path: Path) -> None:
    folder = bert(tmp_path / "rm", **LABELS)
    assert reader(panel(folder, label="good")).labels == ["bad", "fair", "good"]
