"""The rewards and scorers that `score` records beside its rows, and what later commands do with them."""

import json
from pathlib import Path

import pytest
from helpers import call, example, write

from irlhf.io.manifest import InputFile, Manifest
from irlhf.policy.policy_file import read_policy, write_policy
from irlhf.policy.recorded_rewards import read_recorded, rewards_file_of, warn_of_other_scorers
from irlhf.scoring.score import score
from irlhf.training.finetune import finetune_manifest
from irlhf.training.settings import FinetuneSettings
from irlhf.training.training_set import read_training

SETTINGS = FinetuneSettings(template="reward-end")
SHORT = (
    "rewards:\n  words: {scorer: length, direction: lower, weight: 2}\n  rated: {column: n, scale: {kind: linear}}\n"
)


@pytest.fixture
def scored() -> Path:
    write(Path("in.jsonl"), [example(i, completion="a " * (i + 1), n=i) for i in range(8)])
    Path("rewards.yaml").write_text(SHORT)
    score("in.jsonl", "rewards.yaml", "scored.jsonl")
    return Path("scored.jsonl")


def test_finetune_without_a_rewards_file_takes_the_recorded_rewards(scored: Path) -> None:
    training = read_training(scored, FinetuneSettings(template="reward-end"))
    policy = training.policy("", SETTINGS)
    assert policy.reward("words").scale.direction == "lower"
    assert (policy.reward("words").weight, policy.reward("rated").scale.kind) == (2, "linear")
    assert policy.scorers["words"].startswith("length@")
    assert policy.scorers["rated"].startswith("column n@")


def test_without_a_manifest_the_defaults_are_warned_of(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("scored.jsonl.run.json").unlink()
    assert read_training(scored, FinetuneSettings(template="reward-end")).specs["words"].direction == "higher"
    assert "warning: no rewards.yaml: defaults for words, rated" in capsys.readouterr().err


def test_a_recorded_direction_that_changed_is_another_run(scored: Path) -> None:
    before = finetune_manifest("finetune", scored, "tiny", FinetuneSettings()).with_digests()
    Path("rewards.yaml").write_text(SHORT.replace("lower", "higher"))
    score("in.jsonl", "rewards.yaml", "scored.jsonl")
    assert finetune_manifest("finetune", scored, "tiny", FinetuneSettings()).with_digests() != before


def test_a_rewards_file_with_another_scorer_is_warned_of(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("swapped.yaml").write_text(SHORT.replace("scorer: length", "scorer: sentiment"))
    read_training(scored, FinetuneSettings(rewards="swapped.yaml", template="reward-end"))
    assert "warning: words: scored.jsonl was scored by length, but the rewards file names sentiment" in (
        capsys.readouterr().err
    )
    read_training(scored, FinetuneSettings(rewards="rewards.yaml", template="reward-end"))
    assert "warning" not in capsys.readouterr().err


def test_a_policy_keeps_its_scorers_and_other_ones_are_warned_of(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("policy").mkdir()
    write_policy(Path("policy"), read_training(scored, FinetuneSettings(template="reward-end")).policy("", SETTINGS))
    scorers = read_policy(Path("policy")).scorers
    warn_of_other_scorers(scorers, scored)
    assert "warning" not in capsys.readouterr().err
    Path("rewards.yaml").write_text(SHORT.replace("scorer: length", "scorer: 'distinct:1'"))
    score("in.jsonl", "rewards.yaml", "other.jsonl")
    warn_of_other_scorers(scorers, Path("other.jsonl"))
    assert "words: the scale was fitted on the scorer length, but the rewards in other.jsonl are of distinct:1" in (
        capsys.readouterr().err
    )


def test_rows_that_are_scored_again_keep_the_earlier_record(scored: Path) -> None:
    Path("more.yaml").write_text("rewards: {long: {scorer: length}}")
    score(scored, "more.yaml", "again.jsonl")
    recorded = read_recorded(Path("again.jsonl"))
    assert recorded.rewards is not None
    assert (list(recorded.rewards.rewards), list(recorded.scorers)) == (["words", "rated", "long"],) * 2


def test_a_comment_in_the_rewards_file_does_not_make_another_run(scored: Path) -> None:
    settings = FinetuneSettings(rewards="rewards.yaml")
    before = finetune_manifest("finetune", scored, "tiny", settings).with_digests()
    Path("rewards.yaml").write_text(f"# a note\n{SHORT}")
    assert finetune_manifest("finetune", scored, "tiny", settings).with_digests() == before


def test_the_rewards_file_of_a_policy_is_the_file_that_it_was_trained_with(scored: Path) -> None:
    policy = Path("policy")
    policy.mkdir()
    write_policy(policy, read_training(scored, FinetuneSettings(template="reward-end")).policy("", SETTINGS))
    assert rewards_file_of(policy) == "rewards.yaml"  # it has all rewards of the policy
    mine = {"rewards": InputFile(path="mine.yaml", sha256="0")}
    Manifest(command="finetune", inputs=mine, settings={}).write(policy)
    assert rewards_file_of(policy) == "rewards.yaml"
    Path("mine.yaml").write_text(SHORT)
    assert rewards_file_of(policy) == "mine.yaml"
    Path("mine.yaml").unlink()
    Path("rewards.yaml").write_text("rewards: {words: {scorer: length}}\n")
    assert rewards_file_of(policy) == ""  # `rated` is missing
    assert rewards_file_of(Path("base")) == "rewards.yaml"  # a base model has no rewards
    Path("rewards.yaml").write_text("rewards: [")
    assert rewards_file_of(policy) == ""


def test_home_is_expanded_in_options(scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert call("score", "~/in.jsonl", "--rewards=~/rewards.yaml", "-o", "~/out.jsonl", "--json").code == 0
    assert json.loads(Path("out.jsonl.run.json").read_bytes())["counts"]["written"] == 8
