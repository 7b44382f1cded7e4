"""The traps of each format, by name: what real files hold that a careless reader gets wrong."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from helpers import SHARED, Row, read, write
from raw_rows import ASKED, BAD, GOOD, LABELS, ROWS, TRANSCRIPT, USER, completion, oasst, parts, rated

from irlhf.core.errors import DataError
from irlhf.core.example import Where, as_text, from_json
from irlhf.core.pairs import pairs_of
from irlhf.data.cleaning import BEGUN, JOINED
from irlhf.data.cleaning import TRANSCRIPT as READ_AS_MESSAGES
from irlhf.data.formats.helpers import CUT, DIFFER, EQUAL, TIE
from irlhf.data.formats.ultrafeedback import CORRECTED, UNRATED
from irlhf.data.prepare import prepare
from irlhf.data.raw_rows import PARSED
from irlhf.data.settings import PrepareSettings
from irlhf.io.files import read_rows
from irlhf.io.jsonl import DEPTH_LIMIT


def prepared(*rows: Row, **settings: Any) -> list[Row]:
    write(Path("raw.jsonl"), rows)
    Path("out.jsonl").unlink(missing_ok=True)
    prepare(["raw.jsonl"], "out.jsonl", PrepareSettings(**settings))
    return read(Path("out.jsonl"))


def like(name: str, **changed: Any) -> Row:
    return {**copy.deepcopy(ROWS[name]), **changed}


def labels(rows: list[Row]) -> list[str]:
    return [row.get("label", "") for row in rows]


def noted(rows: list[Row]) -> list[list[str]]:
    return [row.get("noted", []) for row in rows]


@pytest.mark.parametrize("name", ["hh", "trl-preference", "prompt-completion"])
def test_an_empty_column_with_the_name_of_an_irlhf_key_is_ignored(name: str) -> None:
    empty = dict.fromkeys(("id", "source", "group", "split", "label"), "")
    assert prepared({**empty, **ROWS[name]}) == prepared(ROWS[name])


def test_values_beyond_the_depth_limit_are_rejected_or_kept_as_text() -> None:
    deep: Any = []
    for _ in range(DEPTH_LIMIT - 3):
        deep = [deep]
    assert prepared(like("trl-preference", chosen={**GOOD, "x": deep}), on_bad_row="skip") == []
    prepared(like("trl-preference", prompt=[USER, USER], noted={"x": deep}))
    assert len(list(read_rows(Path("out.jsonl")))) == 2


def test_hh_prefixes_that_differ() -> None:
    found = prepared(like("hh", rejected="\n\nHuman: Why is it red?\n\nAssistant: It is painted."))
    assert len({row["group"] for row in found}) == 2
    assert noted(found) == [[DIFFER], [DIFFER]]


def test_hh_roles_that_do_not_alternate() -> None:
    twice = "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c\n\nHuman: d\n\nAssistant:"
    found = prepared({"chosen": f"{twice} e", "rejected": f"{twice} f"})
    assert [turn["content"] for turn in found[0]["prompt"]] == ["a", "b\n\nc", "d"]
    assert noted(found) == [[JOINED], [JOINED]]
    (last, _) = prepared({"chosen": f"{TRANSCRIPT} b\n\nAssistant: c", "rejected": f"{TRANSCRIPT} d"})
    assert (last["prompt"], last["completion"], last["noted"]) == ([USER], "b\n\nc", [DIFFER, BEGUN])


def test_hh_empty_chosen() -> None:
    assert labels(prepared(like("hh", chosen=f"{TRANSCRIPT} "))) == ["rejected"]


def test_hh_a_literal_human_inside_text() -> None:
    words = "He said: Human: yes.\nHuman: again. Assistant: no."
    assert prepared(like("hh", chosen=f"{TRANSCRIPT} {words}"))[0]["completion"] == words


def test_red_team_a_transcript_that_ends_with_a_question() -> None:
    (found,) = prepared(like("red-team", transcript=f"{TRANSCRIPT} Air.\n\nHuman: And?"))
    assert (found["prompt"], found["completion"], found["noted"]) == ([USER], "Air.", [CUT])


def test_helpsteer2_rows_with_one_prompt_share_a_group() -> None:
    found = prepared(like("helpsteer"), like("helpsteer", response="Paint.", helpfulness=0))
    assert found[0]["group"] == found[1]["group"]
    assert [row["helpfulness"] for row in found] == [4, 0]


def test_helpsteer2_disagreements_are_lists() -> None:
    (found,) = prepared(like("helpsteer", helpfulness=[4, 3, 3, 2]))
    assert (found["helpfulness"], found["helpfulness_each"]) == (3, [4, 3, 3, 2])


def test_helpsteer2_prompts_of_several_turns() -> None:
    prompt = "Hi\n<extra_id_1>Assistant\nHello.\n<extra_id_1>User\nWhy?"
    (found,) = prepared(like("helpsteer", prompt=prompt))
    assert [(turn["role"], turn["content"]) for turn in found["prompt"]] == [
        ("user", "Hi"), ("assistant", "Hello."), ("user", "Why?"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("strength", "expected"), [(-3, ["chosen", "rejected"]), (1, ["rejected", "chosen"]), (0, ["", ""])]
)
@pytest.mark.parametrize("name", ["helpsteer2-preference", "helpsteer3"])
def test_helpsteer_preferences_below_zero_prefer_the_first(name: str, strength: int, expected: list[str]) -> None:
    key = {"helpsteer3": "overall_preference"}.get(name, "preference_strength")
    assert labels(prepared(like(name, **{key: strength}))) == expected


def test_helpsteer3_a_tie_keeps_both_without_labels_and_is_counted() -> None:
    write(Path("raw.jsonl"), [like("helpsteer3", overall_preference=0)])
    summary = prepare(["raw.jsonl"], "out.jsonl")
    assert (summary["written"], summary[f"noted {TIE}"]) == (2, 2)
    assert noted(read(Path("out.jsonl"))) == [[TIE], [TIE]]


def test_ultrafeedback_a_rating_that_is_not_available() -> None:
    one, two = prepared(like("ultrafeedback"))
    assert "honesty" not in two
    assert (two["helpfulness"], two["noted"], one.get("noted")) == (2, [UNRATED], None)
    assert two["annotations"]["honesty"]["Rating"] == "N/A"


def test_ultrafeedback_a_score_of_10_that_should_be_1() -> None:
    answers = [completion("Good.", 10, rated("5")), completion("Bad.", 10, rated("2"))]
    good, bad = prepared(like("ultrafeedback", completions=answers))
    assert (good["overall_score"], bad["overall_score"]) == (10, 1)
    assert noted([good, bad]) == [[], [CORRECTED]]
    assert labels([good, bad]) == ["chosen", "rejected"]


def test_ultrafeedback_ratings_that_are_equal_are_a_tie() -> None:
    answers = [completion("One.", 8, rated("4")), completion("Two.", 8, rated("4"))]
    assert noted(prepared(like("ultrafeedback", completions=answers))) == [[TIE], [TIE]]


def test_ultrafeedback_binarized_removes_the_prompt_from_both_chats() -> None:
    found = prepared(like("ultrafeedback-binarized"))
    assert [(row["prompt"], row["completion"]) for row in found] == [(ASKED, GOOD["content"]), (ASKED, BAD["content"])]
    assert "messages" not in found[0]


def test_argilla_ratings_with_hyphens_belong_to_their_side() -> None:
    row = {"prompt": ASKED, "chosen": [USER, GOOD], "chosen-rating": 5, "rejected": [USER, BAD], "rejected-rating": 2}
    assert [(one["rating"], one["label"]) for one in prepared(row)] == [(5, "chosen"), (2, "rejected")]


def test_oasst_labels_in_parallel_lists_or_objects_become_numbers() -> None:
    tree = ROWS["oasst-trees"]["prompt"]
    flat = [
        like("oasst"),
        oasst("m1", "Air.", "m0", 0, message_tree_id="m0", labels=LABELS, detoxify={"toxicity": 0.1}),
    ]
    assert prepared(*flat)[0]["labels"] == {"spam": 0.0, "quality": 0.75, "humor": 0.25}
    assert prepared({"message_tree_id": "m0", "prompt": tree})[1]["labels"] == {"quality": 0.75}


def test_oasst_rank_0_is_best_and_every_path_has_its_replies() -> None:
    found = prepared(like("oasst-trees"))
    assert [(row["id"], row["rank"], row.get("label"), row["group"]) for row in found] == [
        ("m1", 1, "rejected", "m0"), ("m2", 0, "chosen", "m0"), ("m4", 0, None, "m3"),
    ]  # fmt: skip
    assert [turn["role"] for turn in found[2]["prompt"]] == ["user", "assistant", "user"]


def test_oasst_flat_rows_are_the_same_examples_as_their_tree() -> None:
    tree = prepared(like("oasst-trees"))
    rows: list[Row] = []
    waiting = [ROWS["oasst-trees"]["prompt"]]
    while waiting:
        node = waiting.pop()
        waiting += reversed(node.get("replies", []))
        kept = {name: value for name, value in node.items() if name != "replies"}
        rows.append({**kept, "message_tree_id": "m0", "tree_state": "ready_for_export"})
    assert prepared(*rows) == tree


def test_oasst_flat_a_message_without_its_parent_is_rejected() -> None:
    rows = [like("oasst"), oasst("m9", "Air.", "gone", 0, message_tree_id="m0")]
    assert prepared(*rows) == []
    reasons = [row["reason"] for row in read(Path("out.jsonl.rejected.jsonl"))]
    assert "does not come before it" in reasons[0]
    assert reasons[1:] == ["the tree has no answer of the assistant"]


def test_oasst_a_deleted_message_is_rejected_with_its_replies() -> None:
    row = like("oasst-trees")
    row["prompt"]["replies"][1]["deleted"] = True
    assert [one["id"] for one in prepared(row)] == ["m1"]


def test_oasst_flat_replies_beyond_the_depth_limit_are_rejected() -> None:
    rows = [
        oasst(f"m{n}", "t", f"m{n - 1}" if n else None, 0 if n % 2 else None, message_tree_id="m0", deleted=n == 40)
        for n in range(3000)
    ]
    assert len(prepared(*rows)) == 20
    reasons = [row["reason"] for row in read(Path("out.jsonl.rejected.jsonl"))]
    assert sum("more than 50 messages lead to this one" in reason for reason in reasons) == 1
    assert len(reasons) == 3000 - 50 + 1  # and the deleted one, with what follows it


def test_oasst_flat_rows_without_a_tree_id_are_separate_trees() -> None:
    prepared(like("oasst"), *[oasst("m1", "Air.", "m0", 0)] * 2)
    assert [row["where"] for row in read(Path("out.jsonl.rejected.jsonl"))] == [
        "raw.jsonl:1",
        "raw.jsonl:2",
        "raw.jsonl:3",
    ]


def test_shp_labels_of_0_prefer_b_and_pairs_of_a_post_share_a_group() -> None:
    found = prepared(like("shp", labels=0), like("shp", human_ref_B="Rain."))
    assert labels(found) == ["rejected", "chosen", "chosen", "rejected"]
    assert [row["score"] for row in found[:2]] == [340, 166]
    assert len({row["group"] for row in found}) == 1
    pairs, _ = pairs_of(from_json(row, Where("out.jsonl", 1)) for row in found)
    assert len(pairs) == 2


def test_nectar_ranks_are_floats_and_a_list_of_sources_is_kept() -> None:
    found = prepared(like("nectar"))
    assert [row["rank"] for row in found] == [1.0, 2.0, 3.0]
    assert (found[0]["source"], found[0]["given_source"]) == ("raw", ["anthropic-hh"])


@pytest.mark.parametrize("name", ["better_response_id", "safer_response_id"])
def test_pku_saferlhf_a_missing_column_is_an_error_with_the_columns(name: str) -> None:
    row = like("pku-saferlhf")
    row[f"new_{name}"] = row.pop(name)
    with pytest.raises(DataError, match=rf"raw\.jsonl:1: '{name}' of PKU-SafeRLHF is missing .*new_{name}"):
        prepared(row)


def test_pku_saferlhf_better_and_safer_are_independent() -> None:
    found = prepared(like("pku-saferlhf", safer_response_id=0))
    assert [(row["label"], row["safer"]) for row in found] == [("rejected", True), ("chosen", False)]


def test_rewardbench2_ties_has_many_chosen() -> None:
    row = like("rewardbench2", chosen=["red", "blue"], rejected=["dog", "cat"], subset="Ties")
    found = prepared(row)
    assert labels(found) == ["chosen"] * 2 + ["rejected"] * 2
    pairs, _ = pairs_of(from_json(one, Where("out.jsonl", 1)) for one in found)
    assert len(pairs) == 4


@pytest.mark.parametrize("counted", ["num_rejected", "num_incorrect"])
def test_rewardbench2_is_recognised_with_either_count_column(counted: str) -> None:
    row = like("rewardbench2")
    row[counted] = row.pop("num_rejected")
    assert len(prepared(row)) == 4


LATER = [USER, GOOD, {"role": "user", "content": "And at night?"}]


@pytest.mark.parametrize(
    ("row", "prompt", "completions"),
    [
        ({"prompt": "The sky is", "completion": " blue."}, "The sky is", [" blue."]),
        ({"prompt": [USER], "completion": [GOOD]}, [USER], [[GOOD]]),
        ({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}, "The sky is", [" blue.", " green."]),
        ({"chosen": "The sky is blue.", "rejected": "The sky is black."}, "The sky is", [" blue.", " black."]),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, [USER], [GOOD["content"], BAD["content"]]),
        ({"chosen": [*LATER, GOOD], "rejected": [*LATER, BAD]}, LATER, [GOOD["content"], BAD["content"]]),
        ({"prompt": "The sky is", "completion": " blue.", "label": True}, "The sky is", [" blue."]),
        ({"prompt": [USER], "completion": [BAD], "label": False}, [USER], [BAD["content"]]),
        ({"prompt": "p", "completions": ["a", "b"], "labels": [True, True]}, "p", ["a\nb"]),
    ],
)
def test_trl_every_documented_dataset_type(row: Row, prompt: Any, completions: list[Any]) -> None:
    found = prepared(row)
    assert [one["completion"] for one in found] == completions
    assert all(one["prompt"] == prompt for one in found)


def test_trl_the_implicit_prompt_ends_at_a_turn() -> None:
    alike = [{**GOOD, "content": "Air, and light."}, {**BAD, "content": "Air, and paint."}]
    found = prepared({"chosen": [USER, alike[0]], "rejected": [USER, alike[1]]})
    assert [row["completion"] for row in found] == ["Air, and light.", "Air, and paint."]


def test_trl_chats_that_differ_before_the_last_turn_are_not_compared() -> None:
    found = prepared({"chosen": [*LATER, GOOD], "rejected": [USER, BAD, LATER[2], BAD]})
    assert [row["completion"] for row in found] == [GOOD["content"], BAD["content"]]
    assert found[0]["group"] != found[1]["group"]
    assert noted(found) == [[DIFFER], [DIFFER]]


def test_trl_texts_without_a_common_beginning_are_rejected() -> None:
    assert len(prepared({"chosen": "The sky", "rejected": "The sea"}, {"chosen": "x", "rejected": "y"})) == 2
    (aside,) = read(Path("out.jsonl.rejected.jsonl"))
    assert aside["reason"] == "there is no prompt, and the two texts begin differently"


def test_a_pair_with_equal_completions_is_noted() -> None:
    assert noted(prepared(like("trl-preference", rejected=[GOOD]))) == [[EQUAL], [EQUAL]]


def test_a_turn_behind_the_last_answer_is_cut_in_messages_too() -> None:
    (found,) = prepared({"messages": [USER, GOOD, USER]})
    assert (found["prompt"], found["completion"], found["noted"]) == ([USER], GOOD["content"], [CUT])
    assert prepared({"messages": [USER]}) == []


def test_messages_with_a_weight_of_0_are_not_trained_on() -> None:
    last = {**BAD, "weight": 0}
    (found,) = prepared({"messages": [USER, {**GOOD, "weight": 1}, USER, last]})
    assert (found["prompt"], found["completion"], found["noted"]) == ([USER], GOOD["content"], [CUT])
    assert prepared({"messages": [USER, last]}) == []


def test_messages_keep_tools_and_calls() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "sky", "arguments": "{}"}}
    calls = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    tools = [{"type": "function", "function": {"name": "sky", "parameters": {}}}]
    answer = {"role": "tool", "tool_call_id": "c", "content": "blue"}
    (found,) = prepared({"messages": [USER, *calls, answer, GOOD], "tools": tools, "parallel_tool_calls": False})
    assert (found["prompt"], found["tools"]) == ([USER, *calls, answer], tools)
    (only,) = prepared({"messages": [USER, *calls], "tools": tools})
    assert only["completion"] == calls


def test_openai_dpo_keeps_its_tools() -> None:
    assert prepared(like("openai-dpo"))[0]["parallel_tool_calls"] is True


@pytest.mark.parametrize("key", ["conversations", "conversation"])
@pytest.mark.parametrize(("asks", "answers"), [("human", "gpt"), ("user", "assistant"), ("Human", "bot")])
def test_sharegpt_by_every_name_of_roles_and_keys(key: str, asks: str, answers: str) -> None:
    turns = [{"from": asks, "value": ASKED}, {"from": answers, "value": "Air."}]
    (found,) = prepared({key: turns})
    assert (found["prompt"], found["completion"]) == ([USER], "Air.")
    (other,) = prepared({key: [{"role": asks, "content": ASKED}, {"role": answers, "content": "Air."}]})
    assert (other["prompt"], other["completion"]) == ([USER], "Air.")


def test_sharegpt_system_calls_and_a_question_without_an_answer() -> None:
    turns = [
        {"from": "human", "value": ASKED},
        {"from": "function_call", "value": '{"name": "sky", "arguments": {"at": "noon"}}'},
        {"from": "observation", "value": "blue"},
        {"from": "gpt", "value": "Blue."},
        {"from": "human", "value": "And?"},
    ]
    (found,) = prepared({"conversations": turns, "system": "Be short."})
    assert [turn["role"] for turn in found["prompt"]] == ["system", "user", "assistant", "tool"]
    assert found["prompt"][2]["tool_calls"][0]["function"] == {"name": "sky", "arguments": '{"at": "noon"}'}
    assert (found["completion"], found["noted"]) == ("Blue.", [CUT])


def test_steerlm_labels_are_numbers_of_each_answer() -> None:
    first, second = prepared(like("steerlm"))
    assert (first["labels"], second["labels"]) == ({"quality": 4, "toxicity": 0, "creativity": 1.5}, {"quality": 3})
    assert [turn["content"] for turn in second["prompt"]] == ["Be short.", ASKED, GOOD["content"], "Sure?"]
    assert (first["id"], second["id"], first["mask"]) == ("raw-0/1", "raw-0/2", "User")
    assert all(set(turn) == {"role", "content"} for turn in second["prompt"])


@pytest.mark.parametrize("label", ["quality=4", "quality:four", "4", ["quality:4"], "quality:4,"])
def test_steerlm_an_invalid_label_is_an_error(label: Any) -> None:
    turns = [{"from": "User", "value": ASKED}, {"from": "Assistant", "value": "Air.", "label": label}]
    with pytest.raises(DataError, match=r"raw\.jsonl:1: label .* is not written like quality:4,toxicity:0"):
        prepared(like("steerlm", conversations=turns))


def test_steerlm_a_chat_without_a_label_is_rejected() -> None:
    turns = [{"from": "User", "value": ASKED, "label": None}, {"from": "Assistant", "value": "Air.", "label": None}]
    assert prepared(like("steerlm", conversations=turns)) == []
    assert read(Path("out.jsonl.rejected.jsonl"))[0]["reason"] == "no answer has a label"


@pytest.mark.parametrize("kind", ["image_url", "image", "input_audio", "file"])
def test_a_part_of_a_message_that_is_not_text_is_an_error(kind: str) -> None:
    seen = [{"type": "text", "text": "What is this?"}, {"type": kind, kind: {"url": "https://example.org/a.png"}}]
    with pytest.raises(
        DataError, match=rf"raw\.jsonl:1: a message of 'messages' contains {kind}; only text is supported"
    ):
        prepared({"messages": [{"role": "user", "content": seen}, GOOD]})


@pytest.mark.parametrize(("name", "at"), [("sky", "\\udc00"), ("\\ud800", "noon")])
def test_sharegpt_a_call_with_lone_surrogates_stays_text(name: str, at: str) -> None:
    words = f'{{"name": "{name}", "arguments": {{"at": "{at}"}}}}'
    (found,) = prepared({"conversations": [USER, {"from": "function_call", "value": words}]})
    assert found["completion"] == words


def test_sharegpt_a_ranking_is_a_pair() -> None:
    sides = {"chosen": {"from": "gpt", "value": "Air."}, "rejected": {"from": "gpt", "value": "Paint."}}
    found = prepared({"conversations": [{"from": "human", "value": ASKED}], **sides})
    assert [(row["label"], row["completion"], row["prompt"]) for row in found] == [
        ("chosen", "Air.", [USER]), ("rejected", "Paint.", [USER]),
    ]  # fmt: skip


def test_alpaca_input_history_system_and_ranking() -> None:
    (plain,) = prepared(like("alpaca"))
    assert plain["prompt"] == f"Answer.\n{ASKED}"
    assert prepared(like("alpaca", input=""))[0]["prompt"] == "Answer."
    (long,) = prepared(like("alpaca", input="", system="Be short.", history=[["Hi", "Hello."]]))
    assert [turn["content"] for turn in long["prompt"]] == ["Be short.", "Hi", "Hello.", "Answer."]
    assert labels(prepared({"instruction": ASKED, "chosen": "Air.", "rejected": "Paint."})) == ["chosen", "rejected"]
    assert labels(prepared(like("alpaca", kto_tag=False))) == ["rejected"]


@pytest.mark.parametrize("winner", ["tie", "both_bad", "tie (bothbad)"])
def test_arena_a_tie_keeps_both_without_labels(winner: str) -> None:
    found = prepared(like("arena", winner=winner))
    assert (labels(found), noted(found)) == (["", ""], [[TIE], [TIE]])


def test_arena_chats_that_differ_earlier_are_not_compared() -> None:
    row = like("arena")
    for letter in "ab":
        row[f"conversation_{letter}"] += [{"role": "user", "content": "And?"}, {**GOOD, "content": parts("Yes.")}]
    found = prepared(row)
    assert noted(found) == [[DIFFER], [DIFFER]]
    assert found[0]["group"] != found[1]["group"]


def test_summarize_prompts_follow_the_paper() -> None:
    found = prepared(like("summarize"))
    assert found[0]["prompt"] == "SUBREDDIT: r/weather\nTITLE: Sky\nPOST: The sky was blue today.\nTL;DR:"
    assert (found[0]["given_split"], found[0]["model"]) == ("valid1", "sup2")


def test_tulu_a_text_prompt_beside_whole_chats() -> None:
    found = prepared({"id": "t", "prompt": ASKED, "chosen": [USER, GOOD], "rejected": [USER, BAD]})
    assert [row["id"] for row in found] == ["t/1", "t/2"]
    assert found[0]["completion"] == GOOD["content"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="IRLHF_SHARED_DATA names no folder with the shared data")
def test_real_trees_give_every_reply_once() -> None:
    summary = prepare([SHARED / "oasst" / "en_100_tree.jsonl"], "out.jsonl")
    found = read(Path("out.jsonl"))
    assert (len(found), summary.get("rejected", 0)) == (687, 0)  # all the assistant's messages of the file
    assert {row["rank"] for row in found if row.get("label") == "chosen"} == {0}
    assert sum(row.get("label") == "chosen" for row in found) == 212  # messages with ranked replies


# ── rules behind all readers ────────────────────────────────────────────────────────────────────────────────────────

SYSTEM = {"role": "system", "content": "Talk like a pirate."}
_ANSWERED = {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a"},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"messages": [{"role": "user", "content": "q"}, _ANSWERED]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"instruction": "q", "input": "", "output": "a"},
        {"prompt": "q", "completion": "a", "label": True},
    ],
    ids=["plain", "pair", "messages", "sharegpt", "alpaca", "unpaired"],
)
@pytest.mark.parametrize("column", ["system", "system_prompt"])
def test_a_system_column_is_the_first_message_in_every_format(row: Row, column: str) -> None:
    for found in prepared({**row, column: SYSTEM["content"]}):
        assert found["prompt"] == [SYSTEM, {"role": "user", "content": "q"}]
        assert column not in found


def test_a_system_column_beside_another_system_message_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = prepared({"prompt": [SYSTEM, {"role": "user", "content": "q"}], "completion": "a", "system": "Other."})
    assert (found["prompt"][0], found["system"]) == (SYSTEM, "Other.")
    assert "warning: column 'system' is not in the prompt: 1 rows" in capsys.readouterr().err


def test_a_column_that_belongs_into_the_prompt_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    prepared({"prompt": "q", "completion": "a", "context": "The text that q is about."})
    assert "warning: column 'context' is not in the prompt: 1 rows" in capsys.readouterr().err


@pytest.mark.parametrize("mark", [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"loss": False}])
def test_an_answer_of_weight_0_is_never_the_completion(mark: Row) -> None:
    turns = [USER, {**GOOD, "weight": None}, USER, {**BAD, **mark}]
    shared = [{"from": turn["role"], "value": turn["content"], **mark} for turn in turns[3:]]
    shared = [{"from": turn["role"], "value": turn["content"]} for turn in turns[:3]] + shared
    for row in ({"messages": turns}, {"conversations": shared}):
        (found,) = prepared(row)
        assert (found["prompt"], found["completion"], found["noted"]) == ([USER], GOOD["content"], [CUT])
    assert prepared({"prompt": [USER], "completion": [{**BAD, **mark}]}) == []


@pytest.mark.parametrize("write_text", [json.dumps, repr, lambda turns: "[" + "\n ".join(map(repr, turns)) + "]"])
def test_a_chat_that_is_stored_as_text_is_read(write_text: Any) -> None:
    chosen, rejected = [USER, GOOD], [USER, BAD]
    both = prepared({"prompt": USER["content"], "chosen": write_text(chosen), "rejected": write_text(rejected)})
    assert [row["completion"] for row in both] == [GOOD["content"], BAD["content"]]
    (found,) = prepared({"messages": write_text(chosen)})
    assert (found["prompt"], found["completion"]) == ([USER], GOOD["content"])
    assert found["noted"] == [PARSED]
    (plain,) = prepared({"prompt": "[1, {2}]", "completion": "{'a': 1}"})
    assert (plain["prompt"], plain["completion"]) == ("[1, {2}]", "{'a': 1}")


def test_a_chat_as_text_that_cannot_be_parsed_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = prepared({"prompt": "[{'role': 'user', 'content': ...", "completion": "a"})
    assert found["prompt"].startswith("[{'role'")
    assert "warning: noted text that looks like a chat but cannot be parsed: 1 rows" in capsys.readouterr().err


@pytest.mark.parametrize("start", ["\n\n", ""])
def test_a_transcript_in_the_prompt_is_read_as_messages(start: str) -> None:
    text = f"{start}Human: Hi\n\nAssistant: Hello.\n\nHuman: Bye?\n\nAssistant:"
    roles = ["user", "assistant", "user"]
    for row in ({"prompt": text, "completion": " Bye."}, {"instruction": text, "output": f"{text} Bye."}):
        (found,) = prepared(row)
        assert [turn["role"] for turn in found["prompt"]] == roles
        assert (found["completion"], found["noted"]) == ("Bye.", [READ_AS_MESSAGES])
    (found,) = prepared({"prompt": text, "completion": " Bye.\n\nHuman: Wait!"})
    assert (found["completion"], found["noted"]) == ("Bye.", [READ_AS_MESSAGES, CUT])


def test_a_transcript_of_another_kind_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = prepared({"prompt": "### Human: Hi\n### Assistant:", "completion": "a"})
    assert found["prompt"] == "### Human: Hi\n### Assistant:"
    assert "warning: noted prompt that looks like a transcript kept as one text" in capsys.readouterr().err


def test_a_turn_behind_the_answer_of_hh_is_cut() -> None:
    start = "\n\nHuman: Hi\n\nAssistant:"
    chosen, rejected = prepared({"chosen": f"{start} A.", "rejected": f"{start} B.\n\nHuman: More?"})
    assert ("noted" in chosen, rejected["completion"], rejected["noted"]) == (False, "B.", [CUT])


@pytest.mark.parametrize(
    ("liked", "label"),
    [(True, "chosen"), ("True", "chosen"), ("false", "rejected"), (1, "chosen"), ("0", "rejected"), (0.0, "rejected")],
)
def test_labels_of_truth_values_become_chosen_and_rejected(liked: Any, label: str) -> None:
    for row in (like("prompt-completion"), {"messages": [USER, GOOD]}):
        (found,) = prepared({**row, "label": liked})
        assert found["label"] == label


def test_a_label_of_another_kind_is_kept_and_reported(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = prepared({"prompt": "q", "completion": "a", "label": 4})
    assert (found["given_label"], "label" in found) == (4, False)
    assert "warning: column 'label' kept as given_label, because only chosen, rejected" in capsys.readouterr().err


def test_nulls_in_messages_and_columns_count_as_absent() -> None:
    turns = [{**USER, "name": None, "tool_calls": None}, {**GOOD, "weight": None}]
    (found,) = prepared({"messages": turns, "instruction": None, "output": None, "label": None})
    assert (found["prompt"], found["completion"]) == ([USER], GOOD["content"])


def test_roles_and_parts_are_read_in_prompts_too() -> None:
    parts = [{"type": "input_text", "text": "one"}, "two"]
    (found,) = prepared({"prompt": [{"from": "Human", "value": parts}], "completion": {"role": "AI", "content": "a"}})
    assert found["prompt"] == [{"role": "user", "content": "one\n\ntwo"}]
    assert as_text(found["completion"]) == "a"
