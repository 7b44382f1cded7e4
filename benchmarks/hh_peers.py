"""Make examples of Anthropic's pairs without irlhf: in a loop, or by a map of `datasets`.

    python benchmarks/hh_peers.py plain|datasets PAIRS.jsonl OUT.jsonl

Both read the transcripts, join consecutive turns of one role, reject empty completions and prompts without a question,
count special tokens, refuse repeated ids, group by the hash of the prompt and split by the hash of the first question's
words, as `irlhf prepare` does with a valid file. Neither names a broken line, and neither reads another format.
"""

import hashlib
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]

ROLES = {"Human": "user", "Assistant": "assistant"}
TURN = re.compile(r"\n\n(Human|Assistant):")
SPECIAL = re.compile(
    r"<[|\uff5c][^|\uff5c<>\n]{1,40}[|\uff5c]>|</?s>|<<?/?SYS>>?|\[/?(?:INST|gMASK|CLS|SEP|PAD|MASK)\]"
    r"|<(?:unk|pad|bos|eos|mask|start_of_turn|end_of_turn|extra_id_[0-9]{1,3})>"
)


def divide(transcript: str) -> tuple[list[Row], str]:
    """Return the messages before the last answer, and that answer."""
    prompt, _, completion = transcript.rpartition("\n\nAssistant:")
    parts = TURN.split(prompt)[1:]
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": ROLES[who], "content": text.strip()} for who, text in turns], completion.strip()


def joined(messages: list[Row]) -> list[Row]:
    """Return the messages with consecutive ones of one role as one."""
    turns: list[Row] = []
    for message in messages:
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1] = {**message, "content": f"{turns[-1]['content']}\n\n{message['content']}"}
        else:
            turns.append(message)
    return turns


def split_of(messages: list[Row]) -> str:
    """Return the split of a prompt, by the hash of its words up to the first question."""
    asked = next(n for n, message in enumerate(messages, 1) if message["role"] == "user")
    said = " ".join(f"{message['role']} {message['content']}" for message in messages[:asked])
    words = " ".join(unicodedata.normalize("NFKC", said).casefold().split())
    point = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8]) / 2**64
    return "test" if point < 0.1 else "validation" if point < 0.15 else "train"


class Maker:
    """Makes the examples of pairs; remembers ids and counts what it met."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.seen: set[str] = set()
        self.counts: Counter[str] = Counter()

    def examples(self, number: int, pair: Row) -> Iterator[Row]:
        """Yield the examples of one pair."""
        sides = {side: divide(pair[side]) for side in ("chosen", "rejected")}
        (prompt, chosen), (other, rejected) = sides.values()
        noted = [] if prompt == other else ["prompts differ"]
        if not noted and chosen == rejected:
            noted = ["completions equal"]
        for letter, (side, (messages, completion)) in zip("ab", sides.items(), strict=True):
            turns = joined(messages)
            if not completion or turns[-1]["role"] != "user":
                self.counts["rejected"] += 1
                continue
            identifier = f"{self.source}-{number}{letter}"
            if identifier in self.seen:
                raise SystemExit(f"{identifier} stands twice")
            self.seen.add(identifier)
            if any(SPECIAL.search(text) for text in (completion, *(turn["content"] for turn in turns))):
                self.counts["special tokens"] += 1
            notes = [*noted, *(["consecutive turns of one role joined"] if len(turns) < len(messages) else [])]
            content = json.dumps(turns, sort_keys=True)
            row = {
                "id": identifier,
                "prompt": turns,
                "completion": completion,
                "group": f"{self.source}-{hashlib.blake2b(content.encode(), digest_size=8).hexdigest()}",
                "label": side,
                "split": split_of(turns),
                "source": self.source,
                "pair": f"{self.source}-{number}" if prompt == other else identifier,
            }
            yield {**row, "noted": notes} if notes else row


def plain(source: Path, output: Path) -> Counter[str]:
    """Make the examples line by line, with what Python brings."""
    maker = Maker(source.stem)
    with source.open(encoding="utf-8") as pairs, output.open("w", encoding="utf-8") as out:
        for number, line in enumerate(pairs):
            for row in maker.examples(number, json.loads(line)):
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
    return maker.counts


def mapped(source: Path, output: Path) -> Counter[str]:
    """Make the examples by `datasets`, with the same function in batches of its default size."""
    from datasets import Features, List, Value, load_dataset

    maker = Maker(source.stem)
    text = Value("string")
    names = ("id", "completion", "group", "label", "split", "source", "pair")
    features = Features(
        {"prompt": List({"role": text, "content": text}), "noted": List(text)} | dict.fromkeys(names, text)
    )

    def examples(batch: dict[str, list[str]], numbers: list[int]) -> dict[str, list[Any]]:
        pairs = (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))
        rows = [row for n, pair in zip(numbers, pairs, strict=True) for row in maker.examples(n, pair)]
        return {name: [row.get(name) for row in rows] for name in features}

    pairs = load_dataset("json", data_files=str(source), split="train", cache_dir=str(output.parent / "cache"))
    made = pairs.map(examples, with_indices=True, batched=True, remove_columns=pairs.column_names, features=features)
    made.to_json(output, force_ascii=False)
    return maker.counts


if __name__ == "__main__":
    PEERS = {"plain": plain, "datasets": mapped}
    print(json.dumps(PEERS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))))
