"""The whole line as Python: the six commands are six functions with the same names.

    python examples/api.py pairs.jsonl

The file holds rows of a `prompt` and a `completion`. What is written lands in the folder you stand in.
"""

import sys
from pathlib import Path

import irlhf
from irlhf import FinetuneSettings, PrepareSettings, SampleSettings


def main(source: str) -> None:
    """Train a small policy whose length can be asked for, and measure whether it obeys."""
    Path("rewards.yaml").write_text("rewards:\n  length: {scorer: length}\n")
    irlhf.prepare([source], "examples.jsonl", PrepareSettings(test=0.2))
    irlhf.score("examples.jsonl", "rewards.yaml", "scored.jsonl")
    irlhf.finetune("scored.jsonl", "policy", "tiny", FinetuneSettings(rewards="rewards.yaml", context=128))
    sweep = SampleSettings(target=("length=0:1:0.25",), n=2, max_tokens=48)
    irlhf.sample("policy", "examples.jsonl", "samples.jsonl", sweep)
    irlhf.score("samples.jsonl", "rewards.yaml", "scored-samples.jsonl")
    result = irlhf.eval(["scored-samples.jsonl"], "eval.json")
    irlhf.plot(["eval.json", "scored.jsonl", "policy"], "plots")
    for policy in result["policies"].values():
        for name, found in policy["rewards"].items():
            print(f"{name}: {found['within']['spearman']}")


if __name__ == "__main__":
    main(sys.argv[1])
