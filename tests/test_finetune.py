"""finetune: which rows are learnt, how they are spelled, and what the policy's folder holds."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import Bench, Row, call, example, names, read, write
from transformers import AutoModelForCausalLM, AutoTokenizer

from irlhf.policy.policy_file import read_policy
from irlhf.policy.rewards_file import Reward
from irlhf.policy.scales import fit
from irlhf.training.finetune import finetune, preview, render
from irlhf.training.settings import FinetuneSettings


def scored(count: int = 60, **fields: Any) -> list[Row]:
    return [example(i, rewards={"short": i, "loud": (i * 7) % 60}, **fields) for i in range(count)]


def rendered(rows: list[Row], **settings: Any) -> list[str]:
    """Return the last user turn of each training row."""
    write(Path("scored.jsonl"), rows)
    render("scored.jsonl", "train.jsonl", FinetuneSettings(**settings))
    return [row["messages"][-2]["content"] for row in read(Path("train.jsonl"))]


def test_only_training_rows_are_learnt() -> None:
    rows = [
        example(i, rewards={"a": i}, split=split) for i, split in enumerate(["train", "validation", "test", ""] * 5)
    ]
    assert [text.split("\n")[0] for text in rendered(rows)] == [f"Question {i}?" for i in range(20) if i % 4 in (0, 3)]


def test_a_rendered_row_is_the_vendors_pure_format() -> None:
    write(Path("scored.jsonl"), scored())
    render("scored.jsonl", "train.jsonl", FinetuneSettings(drop=0))
    first = read(Path("train.jsonl"))[0]
    content = "Question 0?\n\nshort: 0.01\nloud: 0.01"
    assert first == {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "Answer 0."}]}
    assert names(Path.cwd()) == {"scored.jsonl", "train.jsonl", "train.jsonl.run.json", "train.meta.json"}
    assert [card["name"] for card in json.loads(Path("train.meta.json").read_text())["rewards"]] == ["short", "loud"]


def test_a_plain_baseline_sees_no_reward() -> None:
    assert rendered(scored(), baseline="plain") == [f"Question {i}?" for i in range(60)]


def test_without_dropping_every_line_is_there() -> None:
    assert all("short:" in text and "loud:" in text for text in rendered(scored(), drop=0))


def test_lines_are_dropped_one_by_one_so_that_every_subset_is_met() -> None:
    texts = rendered(scored(400), drop=0.5)
    found = Counter(("short:" in text, "loud:" in text) for text in texts)
    assert len(found) == 4
    assert all(60 < count < 140 for count in found.values())


def test_what_is_dropped_hangs_on_the_seed() -> None:
    one = rendered(scored(), drop=0.5)
    Path("train.jsonl").unlink()
    again = rendered(scored(), drop=0.5)
    Path("train.jsonl").unlink()
    assert one == again
    assert one != rendered(scored(), drop=0.5, seed=1)


def test_scales_are_fitted_on_the_training_rows_alone() -> None:
    rows = [example(i, rewards={"a": float(i)}, split="train") for i in range(10)]
    rows += [example(i, rewards={"a": 1000.0 + i}, split="test") for i in range(10, 40)]
    rendered(rows)
    card = json.loads(Path("train.meta.json").read_text())["rewards"][0]
    assert card["scale"] == fit("a", Reward(scorer="x"), [float(i) for i in range(10)]).to_json()


def test_rewards_yaml_says_which_rewards_and_which_way() -> None:
    Path("rewards.yaml").write_text("rewards: {short: {scorer: length, direction: lower}}")
    texts = rendered(scored(), rewards="rewards.yaml", drop=0)
    assert texts[0] == "Question 0?\n\nshort: 0.99"
    assert not any("loud" in text for text in texts)


def test_the_preview_marks_what_is_trained_on(bench: Bench) -> None:
    settings = FinetuneSettings(rewards=str(bench.rewards), drop=0)
    text = preview(bench.scored, "tiny", 2, settings)
    first = read(bench.scored)[2]
    assert text.count("── tokens") == 2
    assert f"── {first['id']}: " in text
    tokens = text.split("── tokens\n")[1].split("\n──")[0]
    learnt = tokens[tokens.index("[") :].strip()
    assert learnt.replace("]|[", "").strip("[]") == f" {first['completion']}<|end|>"
    assert "[" not in tokens[: tokens.index("[ ")]
    assert names(Path.cwd()) == set()


def test_the_policy_is_a_plain_folder_of_weights_with_a_card(bench: Bench) -> None:
    assert {"model.safetensors", "config.json", "tokenizer.json", "policy.json", "metrics.jsonl"} <= names(bench.policy)
    assert not list(bench.policy.glob("checkpoint-*"))
    model = AutoModelForCausalLM.from_pretrained(bench.policy)
    assert model.generation_config.do_sample
    assert AutoTokenizer.from_pretrained(bench.policy).chat_template
    assert not {path.name for path in bench.folder.iterdir()} & {"policy.partial", "policy.lock"}


def test_the_card_remembers_how_rewards_are_spelled(bench: Bench) -> None:
    policy = read_policy(bench.policy)
    training = [row for row in read(bench.scored) if row["split"] == "train"]
    assert policy.names == ("short", "colour")
    assert policy.rewards[0].scale.direction == "lower"
    assert len(policy.reservoir) == len(training)
    assert sorted(policy.reservoir) == sorted((row["rewards"]["short"], row["rewards"]["colour"]) for row in training)
    assert policy.context == 128


def test_the_same_training_again_has_nothing_to_do(bench: Bench) -> None:
    before = (bench.policy / "model.safetensors").stat().st_mtime_ns
    command = ["finetune", bench.scored, "-r", bench.rewards, "--epochs", "1", "--context", "128", "-o", bench.policy]
    outcome = call(*command)
    assert outcome.code == 0
    assert "complete already" in outcome.err
    assert (bench.policy / "model.safetensors").stat().st_mtime_ns == before


def test_another_setting_is_refused_by_name(bench: Bench) -> None:
    outcome = call(
        "finetune", bench.scored, "-r", bench.rewards, "--epochs", "2", "--context", "128", "-o", bench.policy
    )
    assert outcome.code == 2
    assert "epochs was 1.0 and is 2.0" in outcome.err


def test_a_training_that_could_not_start_leaves_nothing_in_the_way(bench: Bench) -> None:
    assert call("finetune", bench.scored, "--model", "./nowhere", "-o", "policy").code == 2
    assert names(Path.cwd()) == set()


def test_other_files_beside_the_data_do_not_matter(bench: Bench) -> None:
    write(Path("scored.jsonl"), scored(40))
    settings = FinetuneSettings(epochs=0.5)
    finetune("scored.jsonl", "policy", "tiny", settings)
    Path("unrelated.json").write_text("{}")
    assert finetune("scored.jsonl", "policy", "tiny", settings)["finished"]


def test_rows_that_do_not_fit_are_counted() -> None:
    rows = scored(40)
    rows[3]["completion"] = "far too long " * 100
    rows[5]["prompt"] = "so very long " * 100
    write(Path("scored.jsonl"), rows)
    outcome = call("finetune", "scored.jsonl", "--epochs", "0.5", "--context", "64", "-o", "policy")
    assert outcome.code == 0
    assert "1 rows left out: the completion does not fit" in outcome.err
    assert "1 rows shortened at the beginning of the conversation" in outcome.err


@pytest.mark.parametrize(("drop", "code"), [("0.99", 0), ("1", 2), ("-0.1", 2)])
def test_a_chance_to_drop_is_a_share_below_one(drop: str, code: int, bench: Bench) -> None:
    assert call("finetune", bench.scored, "--render-only", "-o", "train.jsonl", "--drop", drop).code == code


def test_training_on_keeps_what_every_number_means(bench: Bench) -> None:
    write(Path("more.jsonl"), [example(i, rewards={"short": i * 9, "colour": 0.5 + i % 2}) for i in range(40)])
    arguments = ("finetune", "more.jsonl", "--model", bench.policy, "--keep-scales-of", bench.policy, "--epochs", "1")
    assert call(*arguments, "-o", "on").code == 0
    before, on = read_policy(bench.policy), read_policy(Path("on"))
    assert (on.rewards, on.reservoir, on.template) == (before.rewards, before.reservoir, before.template)
    assert (on.context, on.base) == (before.context, str(bench.policy))
    assert on.training["rows"] == 40
    assert on.digest != before.digest
    old, new = (AutoModelForCausalLM.from_pretrained(one).state_dict() for one in (bench.policy, "on"))
    assert all(old[name].shape == new[name].shape for name in old)
    assert any(not old[name].equal(new[name]) for name in old)
    words = "model.embed_tokens.weight"  # drawn anew they would be as long, and at right angles
    assert (old[words] - new[words]).norm() < 0.5 * old[words].norm()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--template", "words"),
            "--template words: --keep-scales-of takes it from that policy; remove one of the two options",
        ),
        (("--baseline", "plain"), "--baseline plain: --keep-scales-of"),
        (("-r", "other.yaml"), "has the rewards short (lower), colour (higher); use the same rewards or remove -r"),
    ],
)
def test_what_training_on_keeps_cannot_be_changed(arguments: tuple[str, ...], said: str, bench: Bench) -> None:
    Path("other.yaml").write_text("rewards: {short: {scorer: length}, colour: {column: colour}}")
    done = call(
        "finetune", bench.scored, "--model", bench.policy, "--keep-scales-of", bench.policy, *arguments, "-o", "on"
    )
    assert done.code == 2
    assert said in done.err
    assert not Path("on").exists()


def test_what_training_on_needs_is_a_policy(bench: Bench) -> None:
    done = call("finetune", bench.scored, "--keep-scales-of", bench.folder, "-o", "on")
    assert done.code == 2
    assert "no policy.json in this folder" in done.err
