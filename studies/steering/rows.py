"""Keeps the short rows of prepared HH files, so that a small model sees whole completions.

    python rows.py MODEL helpful.jsonl harmless.jsonl

Writes, from examples that `irlhf prepare` split by conversation:

    rows.jsonl                 both completions of each training and validation prompt where both are short enough
    prompts.jsonl              the prompts of rows.jsonl, and longer-answered ones, once each: for the base's samples
    test-prompts.jsonl         short first turns of the test split

and the same of conversations of several turns: rows-turns.jsonl, prompts-turns.jsonl, test-prompts-turns.jsonl.
"""

import json
import sys
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from irlhf.core.example import TEST
from irlhf.io.files import read_rows

PROMPT_TOKENS, TURNS_TOKENS, COMPLETION_TOKENS = 48, 100, 72

Row = dict[str, Any]


def main() -> None:
    """Write the three files."""
    model, *sources = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(model)

    def tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    groups: dict[str, list[Row]] = {}
    for source in sources:
        for _, row in read_rows(Path(source)):
            groups.setdefault(f"{source}/{row['group']}", []).append(row)
    written: dict[str, list[Row]] = {}
    seen: set[str] = set()
    for pair in groups.values():
        turns = pair[0]["prompt"]
        several = "-turns" if len(turns) > 1 else ""
        length = sum(tokens(turn["content"]) for turn in turns)
        if str(turns) in seen or not 3 < length <= (TURNS_TOKENS if several else PROMPT_TOKENS):
            continue
        seen.add(str(turns))
        prompt = {name: pair[0][name] for name in ("prompt", "group", "split", "source")} | {"id": pair[0]["group"]}
        if pair[0]["split"] == TEST:
            written.setdefault(f"test-prompts{several}.jsonl", []).append(prompt)
            continue
        written.setdefault(f"prompts{several}.jsonl", []).append(prompt)
        short = all(tokens(row["completion"]) < COMPLETION_TOKENS for row in pair)
        if len(pair) == 2 and short and pair[0]["completion"] != pair[1]["completion"]:
            written.setdefault(f"rows{several}.jsonl", []).extend(pair)
    for name, rows in written.items():
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
