"""README.md: a model card that is true, gives no local path away, and that no name can break."""

import ast
import html
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import Bench
from markdown_it import MarkdownIt
from markdown_it.token import Token
from transformers import AutoTokenizer

from irlhf.models.loading import load_tokenizer
from irlhf.models.prompt_encoding import PromptEncoder
from irlhf.policy.model_card import fill_model_card, write_model_card
from irlhf.policy.policy_file import Policy, read_policy
from irlhf.policy.scales import nearest
from irlhf.policy.templates import find_template
from irlhf.training.finetune import finetune
from irlhf.training.settings import FinetuneSettings

BEGIN, END = "<!-- irlhf: figures -->", "<!-- end -->"
HOSTILE = [
    "a|b\\|c`d``e",
    "```\n# Owned\n\n| x |\n|---|\n",
    "<script>alert(1)</script><!-- x",
    "![x](http://evil.example) [y](javascript:0) http://evil.example *z* __w__",
    f"\n{BEGIN}\nfalse\n{END}\n",
    "\x1b[2J\u202egnp.exe\u2028line",
    "it's $(touch pwned)",
]


QUESTION = "How do I repot a fern?"


def high(policy: Policy) -> dict[str, float]:
    """Return the numbers nearest to 0.9 that training rows have."""
    return {name: round(nearest(0.9, policy.known(name)), 2) for name in policy.names}


def named_in(code: str, name: str) -> Any:
    """Return a constant of a program."""
    return ast.literal_eval(code.split(f"{name} = ")[1].split("\n", maxsplit=1)[0])


@pytest.fixture
def policy(bench: Bench) -> Policy:
    return read_policy(bench.policy)


def card(policy: Policy, dial: bool = False, **changes: Any) -> str:
    """Return the card of a policy, some of its fields changed."""
    write_model_card(Path.cwd(), replace(policy, **changes), dial)
    return Path("README.md").read_text(encoding="utf-8")


def front(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def tokens(text: str) -> Iterator[Token]:
    """Yield all that Markdown sees in a card, in order."""
    for one in MarkdownIt("commonmark").enable("table").parse(text.split("---\n", 2)[2]):
        yield one
        yield from one.children or []


def tables(text: str) -> list[list[list[str]]]:
    """Return the cells of every table as a reader sees them."""
    found: list[list[list[str]]] = []
    for before, one in itertools.pairwise(tokens(text)):
        if one.type == "table_open":
            found.append([])
        elif one.type == "tr_open":
            found[-1].append([])
        elif before.type in ("th_open", "td_open"):
            found[-1][-1].append(html.unescape(one.content))
    return found


def fences(text: str, language: str) -> list[str]:
    return [one.content.removesuffix("\n") for one in tokens(text) if one.type == "fence" and one.info == language]


def named(policy: Policy, names: Sequence[str]) -> Policy:
    """Return the policy with as many rewards as names."""
    return replace(policy, rewards=tuple(replace(policy.rewards[0], name=name) for name in names))


def test_finetune_leaves_a_card_beside_the_policy(bench: Bench, policy: Policy) -> None:
    text = (bench.policy / "README.md").read_text(encoding="utf-8")
    assert front(text)["library_name"] == "transformers"
    assert front(text)["pipeline_tag"] == "text-generation"
    assert f"`{policy.digest}`" in text
    assert f"- rows: {policy.training['rows']}\n" in text
    assert f"`{policy.training['weights']}`" in text


@pytest.mark.parametrize(
    ("base", "model", "told"),
    [
        ("tiny", None, "# tiny, steered by short, colour"),
        ("/home/somebody/models/Own-0.6B", None, "# Own-0.6B, steered by"),
        ("./models/own", None, "# own, steered by"),
        ("~/own", None, "# own, steered by"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", "# Qwen/Qwen3-0.6B, steered by"),
        ("gpt2", "gpt2", "# gpt2, steered by"),
        ("123", "123", "# 123, steered by"),
    ],
)
def test_a_base_is_named_by_its_hub_id_or_its_last_part(
    base: str, model: str | None, told: str, policy: Policy
) -> None:
    text = card(policy, base=base)
    assert front(text).get("base_model") == model
    assert told in text
    assert "somebody" not in text


def test_a_folder_that_looks_like_a_hub_id_is_a_folder(policy: Policy) -> None:
    Path("models/own").mkdir(parents=True)
    assert "base_model" not in front(card(policy, base="models/own"))


def test_the_card_gives_no_path_of_this_machine_away(bench: Bench) -> None:
    settings = FinetuneSettings(rewards=str(bench.rewards), baseline="prompted")
    finetune(bench.scored, "untouched", str(bench.policy), settings)
    text = Path("untouched/README.md").read_text(encoding="utf-8")
    assert "from the base model policy;" in text
    assert str(bench.folder) not in text
    assert str(Path.cwd()) not in text


def test_equal_runs_make_equal_cards(bench: Bench) -> None:
    settings = FinetuneSettings(rewards=str(bench.rewards), epochs=0.2, context=128)
    for name in ("one", "other"):
        finetune(bench.scored, name, "tiny", settings)
    assert Path("one/README.md").read_bytes() == Path("other/README.md").read_bytes()


@pytest.mark.parametrize("place", ["end", "start", "both", "system"])
def test_the_prompt_shown_is_the_prompt_that_was_trained(place: str, policy: Policy) -> None:
    template = policy.template.model_copy(update={"position": place})
    expected = template.render(QUESTION, high(policy), policy.names)
    text = card(policy, template=template)
    (code,) = fences(text, "python")
    assert named_in(code, "messages") == expected
    assert fences(text, "text") == [one["content"] for one in expected]


def test_a_policy_whose_chat_template_knows_the_rewards_is_asked_through_it(bench: Bench, policy: Policy) -> None:
    text = (bench.policy / "README.md").read_text(encoding="utf-8")
    (code,), (body,) = fences(text, "python"), fences(text, "json")
    served = AutoTokenizer.from_pretrained(bench.policy)
    ids = served.apply_chat_template(
        named_in(code, "messages"), rewards=named_in(code, "rewards"), add_generation_prompt=True, return_dict=False
    )
    chat = PromptEncoder(load_tokenizer(str(bench.policy)), policy.template, policy.names)
    assert ids == chat.prompt(QUESTION, high(policy), 128).ids
    request = json.loads(body)
    assert request["messages"] == named_in(code, "messages")
    assert request["chat_template_kwargs"] == {"rewards": named_in(code, "rewards")}
    assert "`irlhf sample` and the chat template escape" in text


@pytest.mark.slow
def test_the_code_of_the_card_runs(bench: Bench) -> None:
    (code,) = fences((bench.policy / "README.md").read_text(encoding="utf-8"), "python")
    program = code.replace('"POLICY"', repr(str(bench.policy))).replace("=128", "=16")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("kind", ["plain", "chosen", "top"])
def test_a_blind_baseline_says_so_and_shows_no_reward(kind: str, policy: Policy) -> None:
    text = card(policy, baseline=kind, template=find_template("plain"))
    assert f"# tiny, baseline {kind}" in text
    assert "Its prompts hold no reward" in text
    assert "short: " not in text
    assert "escapes" not in text


def test_every_reward_stands_in_the_table(policy: Policy) -> None:
    (table,) = tables(card(policy))
    assert [row[:4] for row in table[1:]] == [
        ["short", "lower", "quantile", "1"],
        ["colour", "higher", "quantile", "1"],
    ]
    assert {len(row) for row in table} == {9}


HEADINGS = ["How to ask", "Rewards", "How it was made", "Figures", "Limits"]


@pytest.mark.parametrize("dial", [True, False])
@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_of_a_reward_breaks_the_card(name: str, dial: bool, policy: Policy) -> None:
    text = card(named(policy, [name, "good"]), dial)
    seen = list(tokens(text))
    headings = [after.content for one, after in itertools.pairwise(seen) if one.type == "heading_open"]
    assert headings[1:] == HEADINGS
    markup = [one.content for one in seen if one.type in ("html_inline", "html_block")]
    assert [one.strip() for one in markup] == [BEGIN, END]
    assert not [one for one in seen if one.type in ("image", "em_open", "strong_open")]
    assert [one.attrs["href"] for one in seen if one.type == "link_open"] == []
    (table,) = tables(text)
    assert {len(row) for row in table} == {9}
    assert [row[0] for row in table[2:]] == ["good"]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_a_name_is_quoted_for_the_shell(policy: Policy) -> None:
    (command,) = fences(card(named(policy, ["it's $(touch pwned)"])), "sh")
    assert shlex.split(command)[-1] == f"it's $(touch pwned)={high(policy)['short']}"


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def measured(digest: str, name: str = "policy", reward: str = "short", **fields: Any) -> dict[str, Any]:
    """Return one policy's part of an eval.json."""
    error = {"mean_absolute": interval(0.125), "floor_permuted": 0.3333, "floor_constant": 0.25}
    figures = {
        "n": 960,
        "prompts": 120,
        "within": {"prompts": 120, "spearman": interval(0.75)},
        "pooled": {"spearman": interval(0.7)},
        "error": error,
    }
    return {"name": name, "digest": digest, "blind": False, "samples": 960, "rewards": {reward: figures}, **fields}


def test_the_figures_of_all_entries_of_the_policy_are_filled_in(policy: Policy) -> None:
    before = card(policy)
    entries = {"a": measured("a" * 12), "b": measured("b" * 12), "c": measured("a" * 12, "policy, best of 4")}
    assert fill_model_card(Path.cwd(), {"policies": entries}, "a" * 12)
    after = Path("README.md").read_text(encoding="utf-8")
    numbers = ["short", "960 of 120 prompts", "0.750 [0.650, 0.850]", "0.700 [0.600, 0.800]"]
    numbers += ["0.125 [0.025, 0.225]", "0.333", "0.250"]
    assert tables(after)[1][1:] == [["policy", *numbers], ["policy, best of 4", *numbers]]
    assert "Not measured yet" not in after
    body = before.split("---\n", 2)[2]
    assert after.split("---\n", 2)[2].split(BEGIN)[0] == body.split(BEGIN)[0]
    assert after.split(END)[1] == body.split(END)[1]


def test_the_figures_are_in_the_front_matter_for_programs(policy: Policy) -> None:
    from huggingface_hub import ModelCard

    card(policy)
    entries = {"a": measured("a"), "b": measured("a", "policy, best of 4", reward='it\'s: "odd"\n|')}
    entries["b"]["rewards"]['it\'s: "odd"\n|'] |= {"within": {"prompts": 0}}
    fill_model_card(Path.cwd(), {"policies": entries}, "a")
    loaded = ModelCard.load(Path("README.md"))
    assert loaded.data.model_name == "policy"
    assert loaded.data.tags == ["irlhf", "alignment", "upside-down-rl"]
    found = [(one.dataset_config, one.metric_type, one.metric_value) for one in loaded.data.eval_results]
    first, second = "policy", "policy, best of 4"
    assert found[:3] == [(first, "spearmanr", 0.75), (first, "spearmanr", 0.7), (first, "mae", 0.125)]
    assert found[3:] == [(second, "spearmanr", 0.7), (second, "mae", 0.125)]
    assert loaded.data.eval_results[0].dataset_name == "960 samples of 120 prompts"
    assert "short: Spearman correlation within prompts, 95% interval 0.650 to 0.850" in str(loaded.data)


def test_the_front_matter_of_the_owner_keeps_its_other_results(policy: Policy) -> None:
    from huggingface_hub import EvalResult, ModelCard

    card(policy)
    own = ModelCard.load(Path("README.md"))
    own.data.license, own.data.model_name = "mit", "mine"
    own.data.eval_results = [EvalResult("text-generation", "mmlu", "MMLU", "accuracy", 0.5)]
    own.save(Path("README.md"))
    for _ in range(2):
        fill_model_card(Path.cwd(), {"policies": {"a": measured("a")}}, "a")
    loaded = ModelCard.load(Path("README.md"))
    assert (loaded.data.license, loaded.data.model_name) == ("mit", "mine")
    assert [one.dataset_type for one in loaded.data.eval_results] == ["mmlu", *["irlhf-samples"] * 3]


@pytest.mark.parametrize("broken", ["---\na: [\n---\n", "---\n- 1\n---\n", "---\nmodel-index: 5\n---\n"])
def test_front_matter_that_cannot_be_read_is_left_alone(broken: str) -> None:
    Path("README.md").write_text(f"{broken}# Mine\n\n{BEGIN}\nold\n{END}\n")
    assert fill_model_card(Path.cwd(), {"policies": {"a": measured("a")}}, "a")
    after = Path("README.md").read_text()
    assert after.startswith(f"{broken}# Mine\n")
    assert "0.750 [0.650, 0.850]" in after


def test_filling_again_replaces_the_figures(policy: Policy) -> None:
    card(policy)
    fill_model_card(Path.cwd(), {"policies": {"a": measured("a", reward="stale")}}, "a")
    fill_model_card(Path.cwd(), {"policies": {"a": measured("a")}}, "a")
    once = Path("README.md").read_bytes()
    fill_model_card(Path.cwd(), {"policies": {"a": measured("a")}}, "a")
    assert Path("README.md").read_bytes() == once
    assert b"stale" not in once


def test_what_was_not_measured_is_not_available(policy: Policy) -> None:
    card(policy)
    one = measured("a", blind=True)
    one["rewards"]["short"] |= {"pooled": {}, "within": {"prompts": 0}}
    mixes = measured("a", "mixes", rewards={})
    assert fill_model_card(Path.cwd(), {"policies": {"a": one, "b": mixes}}, "a")
    rows = tables(Path("README.md").read_text(encoding="utf-8"))[1]
    assert rows[1][0] == "policy (not shown its targets)"
    assert rows[1][3:5] == ["not available", "not available"]
    assert rows[2] == ["mixes", "weights only", "960", *["not available"] * 5]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_breaks_the_figures(name: str, policy: Policy) -> None:
    card(named(policy, [name]))
    assert fill_model_card(Path.cwd(), {"policies": {"a": measured("a", name, name)}}, "a")
    text = Path("README.md").read_text(encoding="utf-8")
    _, figures = tables(text)
    assert {len(row) for row in figures} == {8}
    assert len(figures) == 2
    assert "Not measured yet" not in text
    assert text.rstrip().endswith("decide.")


@pytest.mark.parametrize("text", ["# My own card\n", f"{BEGIN}\nno end\n", f"{END}\n{BEGIN}\n", ""])
def test_a_card_without_the_markers_is_left_alone(text: str) -> None:
    Path("README.md").write_text(text)
    assert not fill_model_card(Path.cwd(), {"policies": {"a": measured("a")}}, "a")
    assert Path("README.md").read_text() == text


def test_where_there_is_no_card_or_no_figure_nothing_is_written(policy: Policy) -> None:
    assert not fill_model_card(Path.cwd(), {"policies": {"a": measured("a")}}, "a")
    assert not Path("README.md").exists()
    text = card(policy)
    assert not fill_model_card(Path.cwd(), {"policies": {"a": measured("a")}}, "b")
    assert Path("README.md").read_text(encoding="utf-8") == text


def test_words_that_the_owner_added_stay(policy: Policy) -> None:
    own = b"# Mine\r\n\xff\r\n" + f"{BEGIN}\r\nold\r\n{END}\r\nmore\r\n".encode()
    Path("README.md").write_bytes(own)
    assert fill_model_card(Path.cwd(), {"policies": {"a": measured("a")}}, "a")
    after = Path("README.md").read_bytes()
    assert after.startswith(b"# Mine\r\n\xff\r\n")
    assert after.endswith(f"{END}\r\nmore\r\n".encode())
    assert b"old" not in after


def test_the_card_changes_no_digest(bench: Bench, policy: Policy) -> None:
    (Path.cwd() / "policy.json").write_bytes((bench.policy / "policy.json").read_bytes())
    card(policy)
    fill_model_card(Path.cwd(), {"policies": {"a": measured(policy.digest)}}, policy.digest)
    assert read_policy(Path.cwd()).digest == policy.digest
