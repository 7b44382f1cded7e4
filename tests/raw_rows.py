"""One row of every format that `prepare` reads, in the shape that people really have it."""

import json
import re
from typing import Any

Row = dict[str, Any]

USER = {"role": "user", "content": "Why is the sky blue?"}
GOOD = {"role": "assistant", "content": "Air scatters blue light most."}
BAD = {"role": "assistant", "content": "It is painted."}
ASKED = "Why is the sky blue?"
TRANSCRIPT = f"\n\nHuman: {ASKED}\n\nAssistant:"


def rated(rating: str, **aspects: str) -> Row:
    """UltraFeedback's annotations: one rating for all aspects but those named."""
    names = ("helpfulness", "honesty", "instruction_following", "truthfulness")
    return {name: {"Rating": aspects.get(name, rating), "Rationale": "So."} for name in names}


def completion(words: str, score: float, annotations: Row) -> Row:
    """One of UltraFeedback's completions."""
    return {
        "model": "llama", "principle": "honesty", "custom_system_prompt": "Be honest.", "response": words,
        "annotations": annotations, "critique": "Fine.", "fine-grained_score": 4.25, "overall_score": score,
    }  # fmt: skip


def oasst(name: str, words: str, parent: str | None, rank: int | None, **more: Any) -> Row:
    """One of OpenAssistant's messages."""
    role = "assistant" if rank is not None else "prompter"
    return {
        "message_id": name, "parent_id": parent, "user_id": "u", "created_date": "2023-02-05T14:23:50.983374+00:00",
        "text": words, "role": role, "lang": "en", "review_count": 3, "review_result": True, "deleted": False,
        "rank": rank, "synthetic": False, "model_name": None, **more,
    }  # fmt: skip


def parts(words: str) -> list[Row]:
    """Content as the Arena has it."""
    return [{"type": "text", "text": words, "image": None, "mimeType": None}]


LABELS = {"name": ["spam", "quality", "humor"], "value": [0.0, 0.75, 0.25], "count": [3, 3, 3]}
RATINGS = {"helpfulness": 4, "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 2}

ROWS: dict[str, Row] = {
    "hh": {"chosen": f"{TRANSCRIPT} Air scatters it.", "rejected": f"{TRANSCRIPT} It is painted."},
    "red-team": {
        "min_harmlessness_score_transcript": -1.25, "num_params": "52B", "model_type": "plain lm", "rating": 1.0,
        "task_description": "Ask about the sky.", "task_description_harm_type": "", "tags": None,
        "transcript": f"{TRANSCRIPT} Air scatters it.\n\nHuman: Sure?\n\nAssistant: Yes.\n",
    },
    "helpsteer3": {
        "domain": "general", "language": "english", "context": [USER], "response1": GOOD["content"],
        "response2": BAD["content"], "overall_preference": -2,
        "individual_preference": [{"score": -2, "reasoning": "r", "feedback1": "a", "feedback2": "b"}],
    },
    "helpsteer2-preference": {
        "split": "train", "prompt": ASKED, "response_1": BAD["content"], "response_2": GOOD["content"],
        "preference_strength": 3, "preference_statement": "Response 2 is right.", "preference_elaboration": "…",
    },
    "helpsteer": {"prompt": ASKED, "response": GOOD["content"], **RATINGS},
    "ultrafeedback": {
        "source": "evol_instruct", "instruction": ASKED, "models": ["llama", "alpaca"],
        "completions": [
            completion(GOOD["content"], 8.5, rated("5")), completion(BAD["content"], 4.0, rated("2", honesty="N/A")),
        ],
        "correct_answers": ["None"], "incorrect_answers": ["None"],
    },
    "ultrafeedback-binarized": {
        "prompt": ASKED, "prompt_id": "f0e37e9f", "chosen": [USER, GOOD], "rejected": [USER, BAD],
        "messages": [USER, GOOD], "score_chosen": 8.5, "score_rejected": 4.0,
    },
    "argilla": {
        "source": "evol_instruct", "instruction": ASKED, "chosen_response": GOOD["content"],
        "rejected_response": BAD["content"], "chosen_avg_rating": 4.75, "rejected_avg_rating": 2.0,
        "chosen_model": "llama",
    },
    "oasst-trees": {
        "message_tree_id": "m0", "tree_state": "ready_for_export",
        "prompt": {
            **oasst("m0", ASKED, None, None), "replies": [
                {**oasst("m1", BAD["content"], "m0", 1), "replies": []},
                {**oasst("m2", GOOD["content"], "m0", 0, labels={"quality": {"value": 0.75, "count": 3}}), "replies": [
                    {**oasst("m3", "And at night?", "m2", None), "replies": [
                        {**oasst("m4", "Little light is left.", "m3", 0), "replies": []}]}]},
            ],
        },
    },
    "oasst": oasst("m0", ASKED, None, None, message_tree_id="m0", tree_state="ready_for_export", labels=LABELS,
                   detoxify={"toxicity": 0.0004}, emojis={"name": ["+1"], "count": [2]}),
    "shp": {
        "post_id": "iw3z9j", "domain": "askphysics_train", "upvote_ratio": 0.98, "history": ASKED,
        "c_root_id_A": "c1", "c_root_id_B": "c2", "created_at_utc_A": 1636107700, "created_at_utc_B": 1636107557,
        "score_A": 340, "score_B": 166, "human_ref_A": GOOD["content"], "human_ref_B": BAD["content"], "labels": 1,
        "seconds_difference": 143.0, "score_ratio": 2.048,
    },
    "pku-saferlhf": {
        "prompt": ASKED, "response_0": BAD["content"], "response_1": GOOD["content"],
        "prompt_source": "Alpaca3", "response_0_source": "Alpaca3-8B", "response_1_source": "WizardLM",
        "is_response_0_safe": False, "is_response_1_safe": True,
        "response_0_harm_category": {"Privacy Violation": True}, "response_1_harm_category": {},
        "response_0_severity_level": 2, "response_1_severity_level": 0,
        "better_response_id": 1, "safer_response_id": 1, "response_0_sha256": "a", "response_1_sha256": "b",
    },
    "nectar": {
        "prompt": f"{TRANSCRIPT} ", "turns": 1, "num_responses": 3, "source": ["anthropic-hh"], "good_natured": True,
        "answers": [
            {"answer": GOOD["content"], "model": "gpt-4", "rank": 1.0},
            {"answer": "Air does it.", "model": "llama", "rank": 2.0},
            {"answer": BAD["content"], "model": "anon", "rank": 3.0},
        ],
    },
    "nemo-rl": {
        "context": [USER], "completions": [{"rank": 1, "completion": [BAD]}, {"rank": 0, "completion": [GOOD]}],
    },
    "arena": {
        "id": "9e1a", "model_a": "claude", "model_b": "gpt", "winner": "model_b", "language": "en",
        "conversation_a": [{**USER, "content": parts(ASKED)}, {**BAD, "content": parts(BAD["content"])}],
        "conversation_b": [{**USER, "content": parts(ASKED)}, {**GOOD, "content": parts(GOOD["content"])}],
    },
    "summarize": {
        "info": {"id": "t3_1", "post": "The sky was blue today.", "title": "Sky", "subreddit": "weather"},
        "summaries": [{"text": " Blue sky.", "policy": "sup2", "note": ""}, {"text": " Rain.", "policy": "ref"}],
        "choice": 0, "worker": "w", "batch": "b", "split": "valid1", "extra": {"confidence": 7},
    },
    "openai-dpo": {
        "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [GOOD], "non_preferred_output": [BAD],
    },
    "steerlm": {
        "system": "Be short.", "mask": "User", "type": "VALUE_TO_TEXT",
        "conversations": [
            {"from": "User", "value": ASKED, "label": None},
            {"from": "Assistant", "value": GOOD["content"], "label": "quality:4,toxicity:0,humor:-100,creativity:1.5"},
            {"from": "User", "value": "Sure?", "label": None},
            {"from": "Assistant", "value": "Yes.", "label": "quality:3"},
        ],
    },
    "sharegpt": {
        "id": "QWJhYvA_0", "system": "Be short.",
        "conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": GOOD["content"]}],
    },
    "rewardbench2": {
        "id": "7", "prompt": ASKED, "chosen": [GOOD["content"]], "rejected": [BAD["content"], "No idea.", "Paint."],
        "num_correct": 1, "num_rejected": 3, "total_completions": 4, "models": ["a", "b", "c", "d"],
        "subset": "Factuality",
    },
    "rewardbench": {
        "prompt": ASKED, "chosen": GOOD["content"], "chosen_model": "gpt", "rejected": BAD["content"],
        "rejected_model": "llama", "subset": "alpacaeval-easy", "id": 0,
    },
    "alpaca": {"instruction": "Answer.", "input": ASKED, "output": GOOD["content"]},
    "trl-preference": {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    "trl-unpaired": {"prompt": ASKED, "completion": GOOD["content"], "label": True},
    "trl-stepwise": {"prompt": ASKED, "completions": ["Light scatters.", "So it is green."], "labels": [True, False]},
    "messages": {"messages": [USER, {**GOOD, "weight": 1}], "tools": []},
    "prompt-completion": {"prompt": ASKED, "completion": GOOD["content"]},
}  # fmt: skip


def several(name: str) -> list[Row]:
    """Three rows of one format, as they stand in one file: each with an id of its own, of a tree each a message."""
    row = ROWS[name]
    if name == "oasst":
        return [row, *(oasst(f"m{rank}", "Air.", "m0", rank - 1, message_tree_id="m0") for rank in (1, 2))]
    own = [json.loads(re.sub(r'"m([0-9])"', rf'"{number}m\1"', json.dumps(row))) for number in range(3)]
    return [{**one, "id": f"{one['id']}{number}"} if "id" in one else one for number, one in enumerate(own)]
