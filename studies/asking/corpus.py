"""Writes what the studies of asking start from into the current folder: the quickstart's dialogues, rewards, templates.

python corpus.py SEED
"""

import shutil
import sys
from pathlib import Path

from irlhf.quickstart.quickstart import write_inputs
from irlhf.quickstart.settings import QuickstartSettings

REWARDS = (
    "kindness: {scorer: sentiment}",
    'detail: {scorer: "scorers:detail"}',
    "brief: {scorer: length, direction: lower}",
    'simple: {scorer: "more:letters", direction: lower}',
)
COPIED = ("more.py", "steps.yaml", "integer.yaml", "digits.yaml", "bounds.yaml", "tenths.yaml", "letters.yaml")


def main() -> None:
    """Write the files; rewards-2.yaml has the first two rewards, and so on."""
    write_inputs(Path(), QuickstartSettings(seed=int(sys.argv[1])), [])
    for count in range(1, len(REWARDS) + 1):
        lines = "\n".join(f"  {one}" for one in REWARDS[:count])
        Path(f"rewards-{count}.yaml").write_text(f"rewards:\n{lines}\n", encoding="utf-8")
    unbounded = "rewards:\n  kindness: {scorer: sentiment, scale: {kind: zscore}}\n"
    Path("rewards-z.yaml").write_text(unbounded, encoding="utf-8")
    for name in COPIED:
        shutil.copy(Path(__file__).with_name(name), name)


if __name__ == "__main__":
    main()
