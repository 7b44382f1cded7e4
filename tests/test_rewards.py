"""rewards.yaml: what a user may write, and what each slip of the pen is told."""

from pathlib import Path

import pytest

from irlhf.errors import ConfigError
from irlhf.rewards import read_rewards


def told(text: str, tmp_path: Path) -> str:
    path = tmp_path / "rewards.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_rewards(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("reward: {a: {scorer: length}}", "unknown key 'reward'; did you mean 'rewards'?"),
        ("rewards: {a: {scorer: length}}\ngolden: {}", "unknown key 'golden'; did you mean 'gold'?"),
        ("rewards: {a: {scorer: length, wieght: 2}}", "unknown key 'rewards.a.wieght'; did you mean 'weight'?"),
        ("rewards: {a: {scorer: length, scale: {knid: none}}}", "'rewards.a.scale.knid'; did you mean 'kind'?"),
        ("rewards: {a: {scorer: length, scale: {kind: log}}}", "rewards.a.scale.kind: input should be 'quantile'"),
        ("rewards: {a: {scorer: length}}\ncombine: product", "combine: input should be 'separate' or 'sum'"),
        ("rewards: {a: {scorer: length, direction: up}}", "rewards.a.direction: input should be 'higher' or 'lower'"),
        ("gold: {a: {scorer: length}}", "no `rewards:` in it"),
        ("rewards: {}", "rewards: dictionary should have at least 1 item"),
        ("rewards: [a]", "rewards: input should be a valid dictionary"),
        ("rewards: {a: length}", "rewards.a: input should be a valid dictionary"),
        ("rewards: {a: {weight: 1}}", "a needs either `scorer:` or `column:`"),
        ("rewards: {a: {scorer: length, column: x}}", "a needs either `scorer:` or `column:`"),
        ("rewards: {a: {scorer: length}}\ngold: {a: {}}", "a needs either `scorer:` or `column:`"),
        (
            "rewards: {abc: {scorer: length}}\ngold: {abd: {scorer: length}}",
            "gold abd measures no reward; did you mean 'abc'?",
        ),
        (
            "rewards: {a: {scorer: length, direction: lower}}\ngold: {a: {scorer: length, direction: higher}}",
            "gold a: lower is better, as of its reward",
        ),
        ("rewards: {a: {scorer: length, weight: -1}}", "rewards.a.weight: input should be greater than or equal to 0"),
        ("rewards: {a: {scorer: length, weight: .nan}}", "rewards.a.weight: input should be"),
        ("rewards: {a: {scorer: length, weight: .inf}}", "rewards.a.weight: input should be"),
        ("rewards: {a: {scorer: length, weight: heavy}}", "rewards.a.weight: input should be a valid number"),
        ("rewards: {a: {scorer: length, scale: {low: 1}}}", "low and high belong to a linear scale"),
        ("rewards: {a: {scorer: length, scale: {kind: linear, low: 1}}}", "takes both low and high, or neither"),
        ("rewards: {a: {scorer: length, scale: {kind: linear, low: 2, high: 2}}}", "low must lie below high"),
        ("rewards: {'a b': {scorer: length}}", "'a b' cannot name a reward"),
        ("rewards: {'2nd': {scorer: length}}", "'2nd' cannot name a reward"),
        ("rewards: {'a:': {scorer: length}}", "'a:' cannot name a reward"),
        ('rewards: {"a\\n": {scorer: length}}', "cannot name a reward"),
        ("rewards:\n  a: {scorer: length}\n  a: {column: x}", ":3: 'a' stands twice"),
        ("rewards:\n  a: &one {scorer: length}\n  b: *one", ":3: aliases (*name) are not read here"),
    ],
)
def test_a_slip_is_named_with_its_mend(text: str, reason: str, tmp_path: Path) -> None:
    assert reason in told(text, tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_rewards(tmp_path / "none.yaml")


def test_everything_that_may_stand_there_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rewards.yaml"
    path.write_text(
        "rewards:\n"
        "  helpful: {scorer: 'hf:some/model', label: good, weight: 2}\n"
        "  short: {scorer: length, direction: lower, scale: {kind: linear, low: 0, high: 4e2}}\n"
        "  größe_2: {column: scores.size, scale: {kind: zscore}}\n"
        "  own: {scorer: 'mine:fn', options: {a: [1, 2]}}\n"
        "gold: {helpful: {scorer: length}}\n"
        "combine: sum\n"
    )
    read = read_rewards(path)
    assert list(read.rewards) == ["helpful", "short", "größe_2", "own"]
    assert read.rewards["short"].scale.high == 400
    assert read.rewards["own"].options == {"a": [1, 2]}
    assert read.combine == "sum"
