"""How two rewards of the same rows go together, with intervals clustered by prompt.

python together.py SCORED REWARD OTHER OUTPUT
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from irlhf.core.bootstrap import Bootstrap, Floats, clustered
from irlhf.io.files import read_rows


def main() -> None:
    """Write the correlation of the rewards, and of their ranks."""
    source, one, other, output = sys.argv[1:]
    rows = [row for _, row in read_rows(Path(source))]
    raw = np.array([[row["rewards"][name] for name in (one, other)] for row in rows])
    kinds = {"pearson": raw, "spearman": np.stack([rankdata(column) for column in raw.T], axis=1)}

    def measure(times: Floats) -> dict[str, Floats]:
        return {kind: _correlation(times, numbers) for kind, numbers in kinds.items()}

    clusters = [row.get("group") or row["id"] for row in rows]
    found = {"n": len(rows), "prompts": len(set(clusters)), **clustered(clusters, measure, Bootstrap())}
    Path(output).write_text(json.dumps(found, indent=1) + "\n")


def _correlation(times: Floats, numbers: Floats) -> Floats:
    """Return the correlation of two columns in each draw, [draws]."""
    weights = times / times.sum(1, keepdims=True)
    centred = numbers[None] - (weights @ numbers)[:, None]
    covered = np.einsum("dr,dri,drj->dij", weights, centred, centred)
    result: Floats = covered[:, 0, 1] / np.sqrt(covered[:, 0, 0] * covered[:, 1, 1])
    return result


if __name__ == "__main__":
    main()
