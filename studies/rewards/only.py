"""Copies the rows of one split.

python only.py EXAMPLES SPLIT OUTPUT
"""

import json
import sys
from pathlib import Path

from irlhf.io.files import read_rows


def main() -> None:
    """Write the rows in their order."""
    source, split, output = sys.argv[1:]
    with Path(output).open("w") as out:
        out.writelines(json.dumps(row) + "\n" for _, row in read_rows(Path(source)) if row["split"] == split)


if __name__ == "__main__":
    main()
