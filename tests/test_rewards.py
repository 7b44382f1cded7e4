"""rewards.yaml: what a user may write, and what each slip of the pen is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irlhf.core.errors import ConfigError, IrlhfError
from irlhf.core.registry import SCORERS
from irlhf.policy.rewards_file import Reward, Rewards, parse_rewards, read_rewards
from irlhf.scoring.runner import scorer_groups


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
        ("gold: {a: {scorer: length}}", "missing key `rewards:`"),
        ("rewards: {}", "rewards: dictionary should have at least 1 item"),
        ("rewards: [a]", "rewards: input should be a valid dictionary"),
        ("rewards: {a: length}", "rewards.a needs its settings in braces"),
        ("rewards: {a: {weight: 1}}", "a needs either `scorer:` or `column:`"),
        ("rewards: {a: {scorer: length, column: x}}", "a needs either `scorer:` or `column:`"),
        ("rewards: {a: {scorer: length}}\ngold: {a: {}}", "a needs either `scorer:` or `column:`"),
        (
            "rewards: {abc: {scorer: length}}\ngold: {abd: {scorer: length}}",
            "gold abd has no reward of the same name; did you mean 'abc'?",
        ),
        (
            "rewards: {a: {scorer: length, direction: lower}}\ngold: {a: {scorer: length, direction: higher}}",
            "gold a: lower must be better, as for its reward",
        ),
        ("rewards: {a: {scorer: length, weight: -1}}", "rewards.a.weight: input should be greater than or equal to 0"),
        ("rewards: {a: {scorer: length, weight: .nan}}", "rewards.a.weight: input should be"),
        ("rewards: {a: {scorer: length, weight: .inf}}", "rewards.a.weight: input should be"),
        ("rewards: {a: {scorer: length, weight: heavy}}", "rewards.a.weight: input should be a valid number"),
        ("rewards: {a: {scorer: length, scale: {low: 1}}}", "low and high are for a linear scale"),
        ("rewards: {a: {scorer: length, scale: {kind: linear, low: 1}}}", "needs both low and high, or neither"),
        ("rewards: {a: {scorer: length, scale: {kind: linear, low: 2, high: 2}}}", "low must be less than high"),
        ("rewards: {'a b': {scorer: length}}", "'a b' is not a valid name of a reward"),
        ("rewards: {'2nd': {scorer: length}}", "'2nd' is not a valid name of a reward"),
        ("rewards: {'a:': {scorer: length}}", "'a:' is not a valid name of a reward"),
        ('rewards: {"a\\n": {scorer: length}}', "is not a valid name of a reward"),
        ("rewards: {a: {scorer: length, read: odds}}", "rewards.a.read: input should be '', 'logit', 'probability' or"),
        (
            "rewards: {a: {scorer: length, input: words}}",
            "a: unknown input 'words' (available: FILE.jinja,",
        ),
        ("rewards: {a: {scorer: length, points: [1]}}", "rewards.a.points.1: field required"),
        ("rewards: {a: {scorer: length, votes: -1}}", "rewards.a.votes: input should be greater than or equal to 0"),
        ("rewards: {a: {scorer: length, timeout: 0}}", "rewards.a.timeout: input should be greater than 0"),
        ("rewards: {a: {scorer: length, revison: x}}", "unknown key 'rewards.a.revison'; did you mean 'revision'?"),
        ("rewards: {a: {scorer: 'm:f', options: {x: {1: a, b: c}}}}", "a: options need finite numbers"),
        ("rewards: {a: {scorer: 'm:f', options: {x: .nan}}}", "a: options need finite numbers"),
        ("rewards: {a: {scorer: 'm:f', options: {1: x}}}", "rewards.a.options.1.[key]: input should be a valid string"),
        ("rewards: {yes: {scorer: length}}", ":1: YAML does not read the name yes as text; write 'yes' in quotation"),
        (
            "rewards: {a: {scorer: length, label: no}}",
            "rewards.a.label is false, because YAML reads yes, no, on and off",
        ),
        ("rewards: {a: {scorer: length, wieght: 2}, b: {direction: up, scorer: x}, c: {}}", "3 mistakes: "),
        ('rewards: {a: {scorer: length, "b\\nc": 1}}', "unknown key 'rewards.a.b"),
        ("rewards:\n  a: {scorer: length}\n  a: {column: x}", ":3: 'a' occurs twice"),
        ("rewards:\n  a: &one {scorer: length}\n  b: *one", ":3: aliases (*name) are not supported"),
    ],
)
def test_a_slip_is_named_with_its_mend(text: str, reason: str, tmp_path: Path) -> None:
    assert reason in told(text, tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file; `irlhf init FOLDER`"):
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


_ODD = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([10**400, "\n", "\0"])
)
_ANY = st.recursive(_ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_ODD, inner, max_size=3))
_KINDS = [f"{name}:{rest}" for name in SCORERS if name != "hf" for rest in ("", "1", "json", "lix", "(", "mine")]
_USUAL: dict[str, list[Any]] = {
    "scorer": ["", "a\nb", "length", "m:f", "./none", "lenght", *_KINDS],
    "column": ["", "n"],
    "label": ["one"],
    "read": ["logit", "probability", "difference"],
    "input": ["chat", "pair", "completion"],
    "options": [{"x": 1}],
    "points": [[1, 5], [5, 1]],
    "scale": [{"kind": "linear", "low": 0, "high": 1}, {"kind": "none"}],
    "weight": [0, 2.5],
}
_MOSTLY_SOUND = 5


def _mostly(*sound: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(*sound * _MOSTLY_SOUND, _ANY)


@st.composite
def _reward(draw: st.DrawFn) -> Any:
    names = ["scorer", *draw(st.lists(st.sampled_from(list(Reward.model_fields)), max_size=3))]
    return {name: draw(_mostly(st.sampled_from(_USUAL.get(name, [1, "x"])))) for name in names}


_SECTION = st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e", "a\nb"]), _mostly(_reward()), max_size=3)
_TREES = st.fixed_dictionaries(
    {"rewards": _SECTION},
    optional={"gold": _SECTION | _ANY, "combine": _mostly(st.sampled_from(["sum", "separate"])), "odd\nkey": _ANY},
)


def told_or(made: Callable[[], Any]) -> Any:
    """Return what is made, or the one line that says why it cannot be."""
    try:
        return made()
    except IrlhfError as error:
        line = str(error)
    assert "\n" not in line
    return line


@given(_TREES | st.dictionaries(_ODD, _ANY))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_tree_is_rewards_or_one_line(tree: Any) -> None:
    found = told_or(lambda: parse_rewards(tree, "r.yaml"))
    if isinstance(found, str):
        assert found.startswith("r.yaml: ")
        return
    again = json.loads(json.dumps(found.model_dump(exclude_defaults=True), allow_nan=False))
    assert parse_rewards(again, "r.yaml") == found
    told_or(lambda: scorer_groups({**found.rewards, **found.gold}, Path()))


@given(st.text(max_size=60) | _TREES.map(lambda tree: yaml.safe_dump(tree, allow_unicode=True)))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_file_is_rewards_or_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    found = told_or(lambda: read_rewards(path))
    assert isinstance(found, Rewards) or found.startswith(str(path))
