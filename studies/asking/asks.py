"""Asks a policy in several ways, scores and evaluates each, in one process: loading anew is most of the time.

    python asks.py REWARDS SEED [--split SPLIT] [--limit N] [-n N] -o evals.json "NAME | OPTIONS OF irlhf sample" ...

The policy is ./policy, the prompts are those of ./examples.jsonl. evals.json holds an eval.json by each name.
"""

import argparse
import shlex
from pathlib import Path

import typer.main

from irlhf.cli.app import app
from irlhf.io.files import read_json, write_json


def main() -> None:
    """Ask, score, evaluate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rewards")
    parser.add_argument("seed")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", default="120")
    parser.add_argument("-n", default="8")
    parser.add_argument("-o", type=Path, required=True)
    parser.add_argument("asks", nargs="+")
    given = parser.parse_args()
    shared = ["--split", given.split, "--limit", given.limit, "-n", given.n, "--max-tokens", "100"]
    evals = {}
    for number, ask in enumerate(given.asks):
        name, _, options = ask.partition("|")
        samples, scored, evaluation = (f"{kind}-{number}" for kind in ("samples", "scored", "eval"))
        asked = [*shared, "--seed", given.seed, *shlex.split(options)]
        _run("sample", "policy", "examples.jsonl", *asked, "-o", f"{samples}.jsonl")
        _run("score", f"{samples}.jsonl", "-r", given.rewards, "-o", f"{scored}.jsonl")
        _run("eval", f"{scored}.jsonl", "-o", f"{evaluation}.json")
        evals[name.strip()] = read_json(Path(f"{evaluation}.json"))
    write_json(given.o, evals)


def _run(*arguments: str) -> None:
    command = typer.main.get_command(app)
    code = command.main(list(arguments), prog_name="irlhf", standalone_mode=False)
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    main()
