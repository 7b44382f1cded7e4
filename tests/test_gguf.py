"""A GGUF file as a base: it becomes a plain model folder, which is trained and sampled."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import call, read, write

WIDTH, INNER, CONTEXT = 32, 64, 256
BYTES = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))] + [
    chr(256 + i) for i in range(68)
]  # how GPT-2 writes bytes
TOKENS = ["<|im_start|>", "<|im_end|>", *BYTES, "re"]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_gguf(path: Path) -> dict[str, Any]:
    """Write a Llama of one layer with random weights, and return its tensors."""
    gguf = pytest.importorskip("gguf", reason="--model FILE.gguf is an extra")
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(WIDTH // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3] + [1] * (len(TOKENS) - 2))
    writer.add_token_merges(["r e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(CHAT)
    draw = np.random.default_rng(0)
    shapes = {"token_embd": (len(TOKENS), WIDTH), "output": (len(TOKENS), WIDTH)}
    shapes |= {f"blk.0.attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_gate": (INNER, WIDTH), "blk.0.ffn_up": (INNER, WIDTH), "blk.0.ffn_down": (WIDTH, INNER)}
    tensors = {name: draw.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    tensors |= {name: np.ones(WIDTH, np.float32) for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")}
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_a_gguf_file_becomes_a_folder_that_is_trained_and_sampled() -> None:
    tensors = write_gguf(Path("small.Q8.gguf"))
    rows = [{"id": f"r{i}", "prompt": f"say {i}", "completion": f"red {i}", "rewards": {"r": i}} for i in range(8)]
    source = write(Path("scored.jsonl"), rows)
    trained = call("finetune", source, "--model", "small.Q8.gguf", "-o", "policy", "--epochs", "1", "--batch", "4")
    assert trained.code == 0, trained.err
    assert "small.Q8.gguf: dequantized to bfloat16, and saved as the model folder small.Q8\n" in trained.err
    import torch
    from safetensors.torch import load_file as load_weights

    weights = load_weights("small.Q8/model.safetensors")
    down = torch.from_numpy(tensors["blk.0.ffn_down"]).to(torch.bfloat16)
    assert torch.equal(weights["model.layers.0.mlp.down_proj.weight"], down)
    drawn = call("sample", "small.Q8.gguf", write(Path("p.jsonl"), [{"prompt": "say 1"}]), "-o", "s.jsonl", "-n", "2")
    assert drawn.code == 0, drawn.err
    assert "dequantized" not in drawn.err  # the folder is used again
    assert len(read(Path("s.jsonl"))) == 2


def test_a_file_that_is_no_gguf_and_a_folder_in_the_way_are_one_line() -> None:
    prompts = write(Path("p.jsonl"), [{"prompt": "say 1"}])
    assert "no.gguf: no such file" in call("sample", "no.gguf", prompts).err
    pytest.importorskip("gguf", reason="--model FILE.gguf is an extra")
    Path("bad.gguf").write_bytes(b"GGUF, but not really")
    outcome = call("sample", "bad.gguf", prompts)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert "bad.gguf: transformers cannot read this GGUF file" in outcome.err
    Path("taken.gguf").write_bytes(b"GGUF")
    Path("taken").mkdir()
    assert "taken exists, but is not the model of taken.gguf; rename one" in call("sample", "taken.gguf", prompts).err
