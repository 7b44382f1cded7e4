"""Bases as people have them: other ends of turns, LoRA weights, templates that reject rows, tools, short contexts."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_template_bases import BASES, CHATML, save_base, tokenizer_of
from helpers import Outcome, Row, call, read, write

from irlhf.openai_api.token_count import TokenCounter, token_counter
from irlhf.training.hosted.training_file import estimates

STRICT = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": '{"town": "Oslo"}'}}
SYSTEM = {"role": "system", "content": "Be kind."}


def rows(count: int = 8, **fields: Any) -> list[Row]:
    return [
        {"id": f"r{i}", "prompt": f"say {i}", "completion": f"the colour is {i}", "rewards": {"r": i}, **fields}
        for i in range(count)
    ]


def base(name: str = "base", template: str | None = CHATML, eos: str = "<|im_end|>", context: int = 256) -> Path:
    return save_base(Path(name), tokenizer_of(template, eos), context)


def finetune(model: object, *options: object, data: list[Row] | None = None, output: str = "policy") -> Outcome:
    source = write(Path("scored.jsonl"), data or rows())
    return call("finetune", source, "--model", model, "-o", output, "--epochs", "1", "--batch", "4", *options)


def trained(*options: object, **settings: Any) -> Path:
    outcome = finetune(base(**settings), *options)
    assert outcome.code == 0, outcome.err
    return Path("policy")


def sample(prompts: list[Any], *options: object, policy: object = "policy") -> Outcome:
    source = write(Path("prompts.jsonl"), [{"prompt": prompt} for prompt in prompts])
    return call("sample", policy, source, "--max-tokens", "4", "-o", "samples.jsonl", *options)


@pytest.mark.parametrize("name", BASES)
def test_every_base_is_probed_trained_sampled_and_stops(name: str) -> None:
    own = BASES[name]
    save_base(Path("base"), tokenizer_of(own.text, own.eos, own.bos))
    outcome = finetune("base", "--learning-rate", "0.05", "--epochs", "30", "--drop", "0")
    assert outcome.code == 0, outcome.err
    stored = json.loads(Path("policy/policy.json").read_text())["turns"]
    assert (stored["prefix"], stored["opening"], stored["end"]) == (own.prefix, own.opening, own.end)
    assert set(stored["ends"]) <= set(json.loads(Path("policy/generation_config.json").read_text())["eos_token_id"])
    assert sample(["say 1", "say 2"], "-t", "r=0.5", "--max-tokens", "40").code == 0
    samples = read(Path("samples.jsonl"))
    assert {row["finish"] for row in samples} == {"stop"}
    assert not any("think" in row["completion"] or "final" in row["completion"] for row in samples)


def test_a_turn_ends_with_the_token_of_the_chat_template_and_not_with_eos() -> None:
    policy = trained("--learning-rate", "0.05", "--epochs", "20", eos="<|endoftext|>")
    stored = json.loads((policy / "policy.json").read_text())["turns"]
    assert (stored["end"], stored["opening"]) == ("<|im_end|>", "")
    assert stored["ends"][0] in json.loads((policy / "generation_config.json").read_text())["eos_token_id"]
    assert sample(["say 1", "say 2"], "-t", "r=0.5", "--max-tokens", "40").code == 0
    assert {row["finish"] for row in read(Path("samples.jsonl"))} == {"stop"}


def test_the_preview_shows_where_an_answer_begins_and_ends() -> None:
    outcome = finetune(base(template=BASES["Qwen3"].text), "--preview", "1")
    header = outcome.out.split("\n")[0]
    assert r"prompts end with '<|im_start|>assistant\n<think>\n\n</think>\n\n'" in header
    assert "a turn ends with '<|im_end|>'" in header


def test_a_tokenizer_without_any_end_is_refused_in_one_line() -> None:
    outcome = finetune(base(template=None, eos=""))
    assert outcome.code == 2
    assert "could not learn to stop; set eos_token" in outcome.err


@pytest.mark.parametrize("options", [(), ("--preview", "2")])
def test_a_template_that_rejects_every_row_is_the_reason_given(options: tuple[str, ...]) -> None:
    prompt = [SYSTEM, {"role": "user", "content": "Hello"}]
    outcome = finetune(base(template=STRICT), *options, data=rows(prompt=prompt))
    assert outcome.code == 1
    assert "rejects this conversation (no system role)" in outcome.err.splitlines()[-1]
    assert "first row: r0" in outcome.err


def test_rewards_in_a_system_message_need_a_template_that_accepts_one() -> None:
    outcome = finetune(base(template=STRICT), "--template", "reward-system")
    assert outcome.code == 2
    assert "--template reward-system: the chat template rejects" in outcome.err
    assert not Path("policy").exists()


def test_one_rejected_prompt_is_set_aside_with_its_reason() -> None:
    trained(template=STRICT)
    outcome = sample(["one", [SYSTEM, {"role": "user", "content": "two"}], "three"], "-t", "r=0.5", "--json")
    assert outcome.code == 0
    assert [row["prompt"] for row in read(Path("samples.jsonl"))] == ["one", "three"]
    assert json.loads(outcome.out)["rejected"] == 1
    assert "no system role" in outcome.err
    assert "no system role" in Path("samples.jsonl.rejected.jsonl").read_text()


def test_where_every_prompt_is_rejected_nothing_is_written_and_the_exit_code_is_1() -> None:
    trained(template=STRICT)
    outcome = sample([[SYSTEM, {"role": "user", "content": "two"}]], "-t", "r=0.5")
    assert outcome.code == 1
    assert "no sample was drawn" in outcome.err


@pytest.mark.parametrize(("option", "code"), [("stop", 1), ("skip", 0)])
def test_a_row_that_is_no_prompt_stops_sampling_or_is_set_aside(option: str, code: int) -> None:
    trained()
    outcome = sample(["one", 7, "three"], "-t", "r=0.5", "--on-bad-row", option)
    assert outcome.code == code
    assert len(read(Path("samples.jsonl")) if code == 0 else []) == (0 if code else 2)


def test_a_prompt_cut_to_the_context_is_counted_and_marked() -> None:
    trained("--context", "64", context=64)
    outcome = sample(["say red", "never say red " * 30], "-t", "r=0.5", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["prompt was shortened at the beginning to fit the context"] == 1
    assert "1 samples: the prompt was shortened" in outcome.err
    assert [row.get("prompt_cut", False) for row in read(Path("samples.jsonl"))] == [False, True]


def test_equal_greedy_samples_are_warned_of() -> None:
    trained()
    assert "the same text 3 times" in sample(["one"], "-t", "r=0.5", "-n", "3", "--temperature", "0").err


def test_targets_that_vary_make_greedy_samples_differ() -> None:
    trained()
    assert "the same text" not in sample(["one"], "-t", "r=data", "-n", "3", "--temperature", "0").err


def test_a_cut_completion_is_trained_without_an_end_or_left_out() -> None:
    data = [*rows(4), *rows(4, finish="length")]
    for number, row in enumerate(data):
        row["id"] = f"r{number}"
    model = base()
    outcome = finetune(model, "--preview", "8", data=data)
    assert outcome.out.count("[<|im_end|>]") == 4
    assert "4 rows cut off by the limit on new tokens: trained without an end of turn" in outcome.err
    outcome = finetune(model, "--preview", "8", "--drop-cut", data=data)
    assert outcome.out.count("tokens of prompt") == 4
    assert "skipped: cut off by the limit on new tokens 4" in outcome.err
    outcome = call("finetune", "scored.jsonl", "--render-only", "-o", "train.jsonl")
    assert "4 rows were cut off by the limit on new tokens, and a host trains them with an end of turn" in outcome.err


def test_tools_reach_the_prompt_the_file_for_hosts_and_the_samples() -> None:
    model = base(template=BASES["Qwen2.5"].text)
    answer = [{"role": "assistant", "content": None, "tool_calls": [CALL]}]
    outcome = finetune(model, "--preview", "1", data=rows(tools=TOOLS, completion=answer))
    assert "get_weather" in outcome.out.split("<|im_start|>user")[0]
    assert '"arguments": {"town": "Oslo"}' in outcome.out
    assert call("finetune", "scored.jsonl", "--render-only", "-o", "train.jsonl").code == 0
    line = read(Path("train.jsonl"))[0]
    assert line["tools"] == TOOLS
    assert line["messages"][-1]["tool_calls"] == [CALL]
    source = write(Path("prompts.jsonl"), [{"prompt": "Weather?", "tools": json.dumps(TOOLS)}])
    assert call("sample", model, source, "--max-tokens", "4", "-o", "samples.jsonl").code == 0
    assert json.loads(read(Path("samples.jsonl"))[0]["tools"]) == TOOLS


def test_tools_that_do_not_fit_are_the_reason_given() -> None:
    outcome = finetune(base(template=BASES["Qwen2.5"].text, context=64), "--preview", "1", data=rows(tools=TOOLS * 5))
    assert outcome.code == 1
    assert "the completion and the tools do not fit; raise --context" in outcome.err.splitlines()[-1]


@pytest.mark.parametrize("model", ["base", "tiny"])
def test_a_call_that_the_template_drops_is_left_out_with_the_name_of_its_row(model: str) -> None:
    base()
    data = rows()
    data[3]["completion"] = [{"role": "assistant", "content": None, "tool_calls": [CALL]}]
    outcome = finetune(model, "--preview", "8", data=data)
    assert outcome.code == 0
    assert outcome.out.count("tokens of prompt") == 7
    assert "1 rows left out: the chat template drops the tool call of the answer" in outcome.err
    assert "first row: r3" in outcome.err


def test_a_folder_of_lora_weights_is_trained_further_and_cannot_be_a_base_of_lora_weights_alone() -> None:
    model = base()
    assert finetune(model, "--lora", "2", "--no-merge", output="adapter").code == 0
    assert finetune("adapter", output="whole").code == 0
    assert finetune("adapter", "--lora", "2", output="merged").code == 0
    for policy in ("adapter", "whole", "merged"):
        assert sample(["one"], "-t", "r=0.5", "-o", f"{policy}.jsonl", policy=policy).code == 0
    outcome = finetune("adapter", "--lora", "2", "--no-merge", output="alone")
    assert outcome.code == 2
    assert "remove --no-merge" in outcome.err
    assert not Path("alone").exists()


def test_a_model_in_the_home_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    base()
    assert finetune("~/base", output="policy").code == 0
    assert sample(["one"], "-t", "r=0.5", policy="~/policy").code == 0


@pytest.mark.parametrize(("text", "tokens"), [("hello " * 100, 150), ("\u5929\u6c14\u5f88\u597d" * 100, 300)])
def test_tokens_for_a_host_are_estimated_from_bytes(text: str, tokens: int) -> None:
    assert estimates({"messages": [{"role": "user", "content": text}]}, TokenCounter()) == [tokens + 4]


def test_tokens_for_a_host_are_counted_with_the_tokenizer_of_a_base_that_is_on_this_machine() -> None:
    folder = base()
    text = "\u5929\u6c14 say red, say blue"
    tokens = tokenizer_of(CHATML)(text, add_special_tokens=False)["input_ids"]
    assert token_counter(str(folder))(text) == len(tokens)
    for name in ("gpt-4.1-mini", "ft:gpt-4.1-mini:someone::id"):
        assert token_counter(name) == TokenCounter()
        assert "bytes" in token_counter(name).accuracy
    hosted = ("--price-per-mtok", "1", "--dry-run", "--base-url", "http://127.0.0.1:9/v1")
    source = write(Path("scored.jsonl"), rows(12))
    for name, how in (("base", "counted with the base's tokenizer"), ("other", "estimated from bytes")):
        assert how in call("finetune", source, "--model", f"openai:{name}", "-o", name + "-policy", *hosted).err


def test_a_dry_run_fails_where_the_job_would_cost_too_much() -> None:
    options = ("--base-url", "http://127.0.0.1:1/v1", "--dry-run", "--price-per-mtok", "1000", "--max-spend", "0.01")
    outcome = call("finetune", write(Path("scored.jsonl"), rows(40)), "--model", "openai:m", "-o", "policy", *options)
    assert outcome.code == 2
    assert "more than --max-spend 0.01" in outcome.err


def test_an_answer_that_is_only_a_tool_call_is_reported_when_it_is_scored() -> None:
    answer = [{"role": "assistant", "content": None, "tool_calls": [CALL]}]
    source = write(Path("e.jsonl"), [*rows(2), {**rows(1)[0], "id": "call", "completion": answer}])
    Path("rewards.yaml").write_text("rewards:\n  words: {scorer: length}\n")
    outcome = call("score", source, "-r", "rewards.yaml", "-o", "s.jsonl", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["rows have a tool call or reasoning and no text"] == 1
    assert "1 rows have a tool call or reasoning and no text" in outcome.err
