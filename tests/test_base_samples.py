"""sample BASE: a base model is drawn from without rewards, and a policy can be trained on what it says."""

import gzip
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Bench, Row, call, process, read, write

from irlhf.core.errors import ConfigError, DataError
from irlhf.io.resumable import digest_of
from irlhf.models.loading import end_tokens, load_causal
from irlhf.policy.policy_file import FILE, read_policy
from irlhf.sampling.sample import sample
from irlhf.sampling.settings import SampleSettings


@pytest.fixture(scope="module")
def base(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain Hugging Face folder: the bench's policy without its policy.json."""
    folder = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(bench.policy, folder)
    (folder / FILE).unlink()
    return folder


def sampled(base: Path, prompts: str | Path = "prompts.jsonl", **more: Any) -> list[Row]:
    settings: dict[str, Any] = {"max_tokens": 12, **more}
    for left in Path.cwd().glob("samples.jsonl*"):
        left.unlink()
    sample(base, prompts, "samples.jsonl", SampleSettings(**settings))
    return read(Path("samples.jsonl"))


@pytest.fixture
def prompts() -> Path:
    path = Path("prompts.jsonl")
    write(path, [{"prompt": f"How do I repot fern {i}?"} for i in range(6)])
    return path


def test_a_bases_sample_is_an_example_without_a_target(base: Path, prompts: Path) -> None:
    rows = sampled(base, n=2)
    assert set(rows[0]) == {
        *("id", "prompt", "completion", "group", "finish", "tokens", "entropy", "logprob", "policy", "seed", "decoding")
    }
    digest = digest_of(base)[:12]
    assert [row["id"] for row in rows[:3]] == [f"prompts-{i}/{digest}/0/{k}" for i, k in ((0, 0), (0, 1), (1, 0))]
    assert {row["policy"] for row in rows} == {digest}
    assert len({row["id"] for row in rows}) == len({row["seed"] for row in rows}) == len(rows) == 12


def test_a_base_draws_as_its_policy_does_when_it_is_asked_for_nothing(base: Path, bench: Bench, prompts: Path) -> None:
    assert [row["completion"] for row in sampled(base)] == [row["completion"] for row in sampled(bench.policy)]


def test_a_prompt_is_put_to_the_base_as_it_stands(base: Path) -> None:
    write(Path("prompts.jsonl"), [{"prompt": "short: 0.90\nHow do I repot a fern?"}])
    rows = sampled(base, temperature=0)
    model, tokenizer = load_causal(str(base))
    ids = tokenizer("Human: short: 0.90\nHow do I repot a fern?\n\nAssistant:", return_tensors="pt")["input_ids"]
    drawn = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert rows[0]["completion"] == tokenizer.decode(drawn, skip_special_tokens=True).strip()


def test_a_row_stops_exactly_where_its_last_token_ends_the_turn(base: Path, prompts: Path) -> None:
    rows = sampled(base, n=8, max_tokens=24)
    assert {row["finish"] for row in rows} == {"stop", "length"}
    assert all(row["tokens"] == 24 for row in rows if row["finish"] == "length")
    model, tokenizer = load_causal(str(base))
    ends = end_tokens(model, tokenizer)
    row = next(row for row in rows if row["finish"] == "stop")
    ids = tokenizer(f"Human: {row['prompt']}\n\nAssistant: {row['completion']}", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        following = model.eval()(ids).logits[0, -1].softmax(-1)
    assert float(following[ends].sum()) > 1e-4  # the end of the turn was likely there


def test_samples_of_a_base_can_be_scored_and_trained_on(base: Path, bench: Bench) -> None:
    given = [{**row, "id": row["group"]} for row in read(bench.examples)]
    write(Path("prompts.jsonl"), [{name: row[name] for name in ("id", "prompt", "split")} for row in given[:60]])
    Path("rewards.yaml").write_text("rewards:\n  short: {scorer: length, direction: lower}\n")
    quick = ["--epochs", "1", "--context", "128"]
    for command in (
        ["sample", base, "prompts.jsonl", "-n", "4", "--max-tokens", "12", "-o", "samples.jsonl"],
        ["score", "samples.jsonl", "-r", "rewards.yaml", "-o", "scored.jsonl"],
        ["finetune", "scored.jsonl", "-r", "rewards.yaml", "--model", base, "-o", "policy", *quick, "--json"],
    ):
        outcome = call(*command)
        assert outcome.code == 0, outcome.err
    splits = {row["id"]: row["split"] for row in read(Path("prompts.jsonl"))}
    rows = read(Path("scored.jsonl"))
    assert all(row["split"] == splits[row["group"]] for row in rows)
    assert {row["split"] for row in rows} == {"train", "validation"}
    assert read_policy(Path("policy")).names == ("short",)
    trained = json.loads(outcome.out)
    assert trained["rows"] == sum(row["split"] == "train" for row in rows)


def test_prompts_of_the_test_split_are_left_to_the_evaluation(base: Path, bench: Bench) -> None:
    def splits(**more: Any) -> set[str]:
        return {row.get("split", "") for row in sampled(base, "some.jsonl", max_tokens=1, **more)}

    own = [{"prompt": "Mine?", "id": "mine"}]
    rows = [{"prompt": split, "id": split, "split": split} for split in ("train", "validation", "test")]
    write(Path("some.jsonl"), own + rows)
    assert splits() == {"", "train", "validation"}
    assert splits(split="test") == {"", "test"}
    assert splits(split="test,validation") == {"", "test", "validation"}
    assert splits(split="all") == {"", "train", "validation", "test"}


def test_a_text_file_holds_a_prompt_a_line(base: Path) -> None:
    Path("prompts.txt").write_text("\ufeffHow, and why?\r\n\n[Draft] a poem\n  x,y\n", encoding="utf-8")
    rows = sampled(base, "prompts.txt", max_tokens=1)
    assert [row["prompt"] for row in rows] == ["How, and why?", "[Draft] a poem", "  x,y"]
    assert [row["group"] for row in rows] == ["prompts-0", "prompts-2", "prompts-3"]
    Path("packed.txt.gz").write_bytes(gzip.compress(b"How?\nWhy?\n"))
    assert [row["prompt"] for row in sampled(base, "packed.txt.gz", max_tokens=1)] == ["How?", "Why?"]


def test_a_text_file_of_json_rows_is_read_as_before(base: Path) -> None:
    write(Path("rows.txt"), [{"prompt": "How?"}])
    assert [row["prompt"] for row in sampled(base, "rows.txt", max_tokens=1)] == ["How?"]


def test_a_text_file_that_is_no_utf_8_is_one_line(base: Path) -> None:
    Path("prompts.txt").write_bytes(b"How?\nCaf\xe9?\n")
    with pytest.raises(DataError, match=r"prompts\.txt:2: not UTF-8 \(byte 4\)"):
        sampled(base, "prompts.txt")


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (["-t", "short=0.9"], "--target"),
        (["--weights", "short"], "--weights"),
        (["--weights", "short", "--mix-from", "front"], "--weights, --mix-from"),
        (["--no-clamp"], "--no-clamp"),
        (["--guidance", "2"], "--guidance"),
        (["--guidance", "2", "--against", "opposite"], "--guidance, --against"),
    ],
)
def test_what_needs_rewards_is_refused_for_a_base_in_one_line(
    options: list[str], refused: str, base: Path, prompts: Path
) -> None:
    outcome = call("sample", base, prompts, *options)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "without a policy.json, this is a base model, which has no rewards" in outcome.err
    assert f"; remove {refused}, or use a folder written by `irlhf finetune`" in outcome.err


def test_a_folder_without_a_model_and_a_name_of_nothing_are_one_line(prompts: Path) -> None:
    Path("empty").mkdir()
    for name, why in (
        ("empty", "empty: no config.json in this folder, so it holds no model"),
        ("/nowhere/polcy", "/nowhere/polcy: no such folder"),
        ("tiny", "tiny has random weights, so its samples are meaningless"),
    ):
        outcome = call("sample", name, prompts)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert why in outcome.err


def test_a_name_that_is_neither_a_folder_nor_cached_is_one_line_without_a_network(prompts: Path) -> None:
    outcome = call("sample", "polcy", prompts)
    assert (outcome.code, outcome.err.count("\n")) == (3, 1)
    assert "polcy: no such folder or cached model, and the Hub cannot be reached; try again with" in outcome.err


@pytest.mark.slow  # a process of its own
@pytest.mark.parametrize("command", ["sample", "finetune", "reward-model"])
def test_a_model_on_the_hub_fails_in_seconds_without_a_network(command: str, prompts: Path) -> None:
    pairs = [{"prompt": f"p{i}", "completion": f"{i}", "rewards": {"r": i}, "id": f"{i}"} for i in range(8)]
    write(Path("rated.jsonl"), pairs)
    given: list[object] = {
        "sample": ["someone/model", prompts],
        "finetune": ["rated.jsonl", "--model", "someone/model"],
        "reward-model": ["rated.jsonl", "--reward", "r", "--model", "someone/model"],
    }[command]
    own = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(Path("cache").resolve()), "HF_HUB_OFFLINE": "0"}
    begun = time.monotonic()
    ended = process(command, *given, env={**os.environ, **own})
    lines = ended.stderr.decode().splitlines()
    assert ended.returncode == 3, lines
    assert lines[-1].startswith("irlhf: someone/model: no such folder or cached model, and the Hub cannot be reached")
    assert time.monotonic() - begun < 60  # Python's start takes most of it; retries would take minutes


def test_an_interrupted_run_of_a_base_goes_on_as_if_it_had_not_been(base: Path, prompts: Path) -> None:
    whole = sampled(base, n=2, batch=1)
    lines = Path("samples.jsonl").read_bytes().splitlines(keepends=True)
    Path("samples.jsonl").rename("samples.jsonl.partial")
    Path("samples.jsonl.partial").write_bytes(b"".join(lines[:5]))
    summary = sample(base, prompts, "samples.jsonl", SampleSettings(n=2, max_tokens=12, batch=1))
    assert summary["resumed"] == 5
    assert read(Path("samples.jsonl")) == whole


def test_other_weights_are_another_base(base: Path, prompts: Path) -> None:
    sampled(base)
    changed = Path(shutil.copytree(base, "changed"))
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    with pytest.raises(ConfigError, match=r"belongs to a different run: the policy was .*/model and is changed"):
        sample(changed, prompts, "samples.jsonl", SampleSettings(max_tokens=12))


def test_shards_of_a_base_are_the_whole(base: Path, prompts: Path) -> None:
    whole = sampled(base, n=2)
    parts = [row for i in (1, 2, 3) for row in _shard(base, prompts, f"{i}/3")]
    assert sorted(parts, key=lambda row: row["id"]) == sorted(whole, key=lambda row: row["id"])


def _shard(base: Path, prompts: Path, shard: str) -> list[Row]:
    try:
        return sampled(base, prompts, n=2, shard=shard)
    except DataError:  # no prompt fell into this part
        return []


@pytest.mark.slow  # a whole process
def test_a_base_on_the_hub_is_named_by_its_commit(
    base: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--small"
    shutil.copytree(base, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    command = ["sample", "someone/small", prompts, "--max-tokens", "4", "-o", "samples.jsonl"]
    done = process(*command, env={**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub")})
    assert done.returncode == 0, done.stderr
    assert {row["policy"] for row in read(Path("samples.jsonl"))} == {commit[:12]}
    manifest = json.loads(Path("samples.jsonl.run.json").read_text())
    assert manifest["settings"]["base"] == f"someone/small@{commit[:12]}"
    assert set(manifest["inputs"]) == {"prompts"}


@pytest.mark.parametrize("command", [["eval"], ["score", "--keep", "best"], ["score", "--keep", "distinct"]])
def test_what_needs_targets_or_scales_says_so_of_a_bases_samples(command: list[str], base: Path, prompts: Path) -> None:
    sampled(base, n=2)
    Path("rewards.yaml").write_text("rewards:\n  short: {scorer: length}\n")
    assert call("score", "samples.jsonl", "-r", "rewards.yaml", "-o", "scored.jsonl").code == 0
    name, *options = command
    outcome = call(name, "scored.jsonl", *options, "-o", "out.json")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "they have no target; samples of a base model are for finetune" in outcome.err
