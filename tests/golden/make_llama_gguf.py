"""Writes llama_gguf.safetensors: what llama.cpp's converter does to a llama model.

    make_llama_gguf.py LLAMA_CPP    (the source tree with conversion/llama.py)

rows_H_D: rows 0 .. H·D-1 of a projection with H heads of D, in GGUF's order (LlamaModel.permute).
factors_*: rope_freqs.weight (LlamaModel.generate_extra_tensors) for Llama 3.1 8B, Llama 3.2 1B and a small model.
"""
import pathlib
import sys
from types import SimpleNamespace

import torch
from safetensors.torch import save_file

sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]
from conversion.llama import LlamaModel  # noqa: E402

out = {}
for heads, head_dim in [(9, 64), (3, 64), (2, 6), (1, 2)]:
    rows = torch.arange(heads * head_dim).reshape(-1, 1)
    out[f"rows_{heads}_{head_dim}"] = LlamaModel.permute(rows, heads, heads).reshape(-1).contiguous()

for name, head_dim, theta, factor, low, high, original in [
    ("llama31_8b", 128, 500000.0, 8.0, 1.0, 4.0, 8192),
    ("llama32_1b", 64, 500000.0, 32.0, 1.0, 4.0, 8192),
    ("small", 20, 10000.0, 8.0, 1.0, 4.0, 16),
]:
    rope = dict(rope_type="llama3", rope_theta=theta, factor=factor, low_freq_factor=low, high_freq_factor=high,
                original_max_position_embeddings=original)
    model = SimpleNamespace(rope_parameters=rope, hparams=dict(head_dim=head_dim), format_tensor_name=lambda _: "rope_freqs")
    [(_, out[f"factors_{name}"])] = list(LlamaModel.generate_extra_tensors(model))
save_file(out, pathlib.Path(__file__).parent / "llama_gguf.safetensors")
