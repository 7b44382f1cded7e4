"""Keeps the short single-turn rows of prepared HH files, so that a small model sees whole completions.

    python rows.py MODEL helpful.jsonl harmless.jsonl

Writes, from examples that `irlhf prepare` split by conversation:

    rows.jsonl           both completions of each training and validation prompt where both are short enough
    prompts.jsonl        the same prompts, and longer-answered ones, once each: to draw the base model's own samples
    test-prompts.jsonl   short first turns of the test split
"""

import json
import sys
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from irlhf.files import read_rows
from irlhf.records import TEST

PROMPT_TOKENS, COMPLETION_TOKENS = 48, 72

Row = dict[str, Any]


def main() -> None:
    """Write the three files."""
    model, *sources = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(model)

    def tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    groups: dict[str, list[Row]] = {}
    seen: set[str] = set()
    for source in sources:
        for _, row in read_rows(Path(source)):
            groups.setdefault(f"{source}/{row['group']}", []).append(row)
    with (
        Path("rows.jsonl").open("w") as rows,
        Path("prompts.jsonl").open("w") as prompts,
        Path("test-prompts.jsonl").open("w") as test,
    ):
        for pair in groups.values():
            turns = pair[0]["prompt"]
            text = turns[0]["content"]
            if len(turns) > 1 or text in seen or not 3 < tokens(text) <= PROMPT_TOKENS:
                continue
            seen.add(text)
            prompt = {name: pair[0][name] for name in ("prompt", "group", "split", "source")}
            prompt["id"] = pair[0]["group"]
            if pair[0]["split"] == TEST:
                test.write(json.dumps(prompt) + "\n")
                continue
            prompts.write(json.dumps(prompt) + "\n")
            short = all(tokens(row["completion"]) < COMPLETION_TOKENS for row in pair)
            if len(pair) == 2 and short and pair[0]["completion"] != pair[1]["completion"]:
                rows.writelines(json.dumps(row) + "\n" for row in pair)


if __name__ == "__main__":
    main()
