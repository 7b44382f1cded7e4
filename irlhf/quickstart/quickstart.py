"""The built-in quickstart: generated dialogues, a policy trained from scratch, and its evaluation."""

import time
from collections.abc import Sequence
from importlib.resources import files as package_files
from pathlib import Path

from irlhf.core.example import TEST, dumps
from irlhf.io.files import read_json, read_rows
from irlhf.quickstart.built_in_summary import tell
from irlhf.quickstart.commands import Run, Step, inside, report_usage, run_all, script, write_once
from irlhf.quickstart.corpus import TOPICS, generate
from irlhf.quickstart.settings import QuickstartSettings

PLAY = 12  # held-out prompts in prompts.jsonl

_INPUTS = ("rewards.yaml", "template.yaml", "scorers.py")
# A reward with weight 0 is not requested.
_WEIGHTS = {"kind": "kindness+0*detail", "even": "kindness+detail", "detailed": "0*kindness+detail"}


def steps(settings: QuickstartSettings) -> list[Step]:
    """Return the commands, in order."""
    seed = settings.seed
    train = "finetune scored.jsonl -r rewards.yaml --model tiny --template template.yaml"
    train += f" --epochs {settings.epochs:g} --batch 8 --context 256 --seed {seed}"
    ask = f"examples.jsonl --limit {settings.prompts} --max-tokens 100 --seed {seed}"
    commands = [
        Step("prepare dialogues.jsonl -o examples.jsonl", 1),
        Step("score examples.jsonl -r rewards.yaml -o scored.jsonl", 6),
        Step(f"{train} -o policy", 70),
        Step(f"{train} --baseline plain -o plain", 60),
        Step(f"sample policy {ask} -t kindness=data -t detail=data -n 8 -o samples.jsonl", 9),
        Step(f"sample plain {ask} -t kindness=data -t detail=data -n 8 -o samples-plain.jsonl", 8),
    ]
    mixes = {f"samples-{name}": weights for name, weights in _WEIGHTS.items()}
    for name, weights in mixes.items():
        commands.append(Step(f"sample policy {ask} --weights {weights} --mix-from best -n 2 -o {name}.jsonl", 4))
    for name in ("samples", "samples-plain", *mixes):
        commands.append(Step(f"score {name}.jsonl -r rewards.yaml -o scored-{name}.jsonl", 1))
    scored = " ".join(f"scored-{name}.jsonl" for name in ("samples-plain", *mixes))
    grid = "-t kindness=0.1:0.9:0.8 -t detail=0.1:0.9:0.8"
    return [
        *commands,
        Step(f"sample policy prompts.jsonl {grid} --max-tokens 100 --seed {seed} -o grid.jsonl", 3),
        Step("score scored-samples.jsonl -r rewards.yaml --gold -o gold-samples.jsonl", 1),
        Step(f"eval gold-samples.jsonl {scored} -o eval.json", 4),
        Step(f"plot eval.json scored.jsonl policy plain gold-samples.jsonl {scored} -o plots --report report.html", 4),
    ]


def quickstart(folder: str | Path, run: Run, settings: QuickstartSettings = QuickstartSettings()) -> None:
    """Run the commands in `folder` and print a summary. An interrupted run resumes."""
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    commands = steps(settings)
    write_inputs(home, settings, commands)
    started = time.monotonic()
    with inside(home):
        run_all(commands, run)
        tell(read_json(Path("eval.json")), [row for _, row in read_rows(Path("grid.jsonl"))])
    report_usage(home, time.monotonic() - started)


def write_inputs(home: Path, settings: QuickstartSettings, commands: Sequence[Step]) -> None:
    """Write the inputs: dialogues, rewards, scorers, a template, prompts and run.sh.

    Raises ConfigError if a file exists with another content, such as a changed file or that of another seed.
    """
    rows = [{**row, "split": TOPICS[row["topic"]].split} for row in generate(settings.rows, settings.seed)]
    held_out = list({row["group"]: row for row in rows if row["split"] == TEST}.values())
    play = [{"id": f"play-{n}", "prompt": row["prompt"], "split": TEST} for n, row in enumerate(held_out[:PLAY], 1)]
    texts = {
        "dialogues.jsonl": b"".join(map(dumps, rows)).decode(),
        "prompts.jsonl": b"".join(map(dumps, play)).decode(),
        "run.sh": script(commands),
    }
    shipped = package_files("irlhf.quickstart").joinpath("files")
    texts |= {name: shipped.joinpath(name).read_text(encoding="utf-8") for name in _INPUTS}
    for name, text in texts.items():
        write_once(home / name, text)
    (home / "run.sh").chmod(0o755)
