"""Golden hashes of what llama-quantize makes of two small models, type by type.

    PYTHONPATH=LLAMA_CPP/gguf-py make_quantize.py LLAMA_QUANTIZE

Writes quantize.json beside this file: {model: {type: {"plain" | "imatrix": 8 hex digits a tensor, by sorted name}}}; each is the
start of SHA-256 over the type's name and the bytes. Weights and importance matrix follow from a formula that
tests/export/small_model.h repeats. "k" has rows of 256 and of 64, "odd" rows of 96 and 160, where K-quants fall back.

Made with llama.cpp and gguf-py of llama-cpp-python 0.3.36 (the gguf on PyPI does not know Q2_0 yet).
"""
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np

MODELS = {
    "k": dict(layers=8, dim=256, heads=4, kv_heads=1, head_dim=16, ffn=256, vocab=32, tied=False),
    "odd": dict(layers=2, dim=96, heads=2, kv_heads=2, head_dim=48, ffn=160, vocab=32, tied=True),
}
TYPES = ("F32 BF16 F16 Q8_0 Q6_K Q5_1 Q5_K_M Q5_K_S Q5_0 Q4_1 Q4_K_M Q4_K_S IQ4_NL Q4_0 MXFP4_MOE IQ4_XS Q3_K_L Q3_K_M Q3_K_S "
         "IQ3_M IQ3_S IQ3_XS IQ3_XXS Q2_K Q2_K_S IQ2_M IQ2_S IQ2_XS Q2_0 IQ2_XXS TQ2_0 IQ1_M TQ1_0 IQ1_S Q1_0").split()


def random_bits(name, count):
    """SplitMix64 from the FNV-1a hash of the name."""
    with np.errstate(over="ignore"):
        h = np.uint64(0xCBF29CE484222325)
        for c in name.encode():
            h = (h ^ np.uint64(c)) * np.uint64(0x100000001B3)
        z = h + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def weights(name, shape):
    """Sums of four 16-bit numbers, nearly normal, exact in f32."""
    z = random_bits(name, int(np.prod(shape)))
    total = sum((z >> np.uint64(s)) & np.uint64(0xFFFF) for s in (0, 16, 32, 48)).astype(np.int64) - 131070
    w = (total * 2.0**-21).astype(np.float32)
    return (w + np.float32(1) if "norm" in name else w).reshape(shape)


def importance(name, columns):
    return ((random_bits(name + ".in_sum2", columns) & np.uint64(0xFFFF)).astype(np.float32) + 1) * np.float32(2.0**-8)


def tensors(m):
    q, kv = m["heads"] * m["head_dim"], m["kv_heads"] * m["head_dim"]
    yield "token_embd.weight", (m["vocab"], m["dim"])
    for i in range(m["layers"]):
        for name, shape in [("attn_norm", (m["dim"],)), ("ffn_norm", (m["dim"],)), ("attn_q", (q, m["dim"])),
                            ("attn_k", (kv, m["dim"])), ("attn_v", (kv, m["dim"])), ("attn_output", (m["dim"], q)),
                            ("ffn_gate", (m["ffn"], m["dim"])), ("ffn_up", (m["ffn"], m["dim"])),
                            ("ffn_down", (m["dim"], m["ffn"]))]:
            yield f"blk.{i}.{name}.weight", shape
    yield "output_norm.weight", (m["dim"],)
    if not m["tied"]:
        yield "output.weight", (m["vocab"], m["dim"])


def write_model(path, m):
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(m["layers"])
    w.add_context_length(64)
    w.add_embedding_length(m["dim"])
    w.add_feed_forward_length(m["ffn"])
    w.add_head_count(m["heads"])
    w.add_head_count_kv(m["kv_heads"])
    w.add_key_length(m["head_dim"])
    w.add_value_length(m["head_dim"])
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(m["head_dim"])
    w.add_vocab_size(m["vocab"])
    for name, shape in tensors(m):
        w.add_tensor(name, weights(name, shape))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def write_imatrix(path, m):
    w = gguf.GGUFWriter(path, "llama")
    w.add_type("imatrix")
    w.add_array("imatrix.datasets", ["formula"])
    w.add_uint32("imatrix.chunk_count", 1)
    w.add_uint32("imatrix.chunk_size", 4)
    for name, shape in tensors(m):
        if len(shape) == 2 and name.startswith("blk."):
            w.add_tensor(name + ".in_sum2", importance(name, shape[1]).reshape(1, -1))
            w.add_tensor(name + ".counts", np.full((1, 1), 4, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def hashes(path):
    found = {}
    for t in gguf.GGUFReader(path).tensors:
        found[t.name] = hashlib.sha256(t.tensor_type.name.encode() + t.data.tobytes()).hexdigest()[:8]
    return "".join(found[name] for name in sorted(found))


if __name__ == "__main__":
    golden = {}
    with tempfile.TemporaryDirectory() as folder:
        for model, m in MODELS.items():
            base, imatrix, out = (f"{folder}/{name}.gguf" for name in ("base", "imatrix", "out"))
            write_model(base, m)
            write_imatrix(imatrix, m)
            for kind in TYPES:
                for label, extra in [("plain", []), ("imatrix", ["--imatrix", imatrix])]:
                    run = subprocess.run([sys.argv[1], *extra, base, out, kind, "2"], capture_output=True, text=True)
                    if run.returncode == 0:
                        golden.setdefault(model, {}).setdefault(kind, {})[label] = hashes(out)
                    elif any(reason in run.stdout + run.stderr for reason in ("requires an imatrix", "no tensor type fallback")):
                        golden.setdefault(model, {}).setdefault(kind, {})  # refused, and so must we
                    else:
                        sys.exit(f"{model} {kind} {label}: {run.stdout[-2000:]}{run.stderr[-2000:]}")
    target = pathlib.Path(__file__).parent / "quantize.json"
    target.write_text(json.dumps(golden, indent=1) + "\n")
