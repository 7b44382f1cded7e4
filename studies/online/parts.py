"""Parts the rows in two: those that the first policy learns, and fresh ones for the offline control.

python parts.py EXAMPLES SHARE

start.jsonl has SHARE of the training rows and all others; fresh.jsonl the rest of the training rows.
"""

import json
import sys
from pathlib import Path

from irlhf.core.example import TRAIN
from irlhf.io.files import read_rows


def main() -> None:
    """Write both files."""
    source, share = sys.argv[1:]
    rows = [row for _, row in read_rows(Path(source))]
    training = [row["id"] for row in rows if row["split"] == TRAIN]
    fresh = set(training[round(float(share) * len(training)) :])
    for name, wanted in (("start", False), ("fresh", True)):
        with Path(f"{name}.jsonl").open("w") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows if (row["id"] in fresh) is wanted)


if __name__ == "__main__":
    main()
