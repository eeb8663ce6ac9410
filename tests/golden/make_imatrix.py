"""Golden importance matrix: what llama-imatrix collects on two chunks of 128 tokens of SmolLM2-135M.

    make_imatrix.py LLAMA_BIN_DIR SmolLM2-135M-Instruct.Q4_1.gguf

Writes imatrix.json beside this file: the token ids, and for each weight the count, the sum of in_sum2 over all columns and eight
single columns. Made with llama.cpp as in llama-cpp-python 0.3.36, on the F32 dequantization of the file.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import gguf

TEXT = ("A retort is a vessel for distilling: a bulb whose long neck points down into a receiver. Alchemists heated liquids in it, "
        "and what came over was purer than what went in. ") * 8

binaries, model = pathlib.Path(sys.argv[1]), sys.argv[2]
with tempfile.TemporaryDirectory() as folder:
    f32, text, out = f"{folder}/f32.gguf", f"{folder}/text", f"{folder}/imatrix.gguf"
    pathlib.Path(text).write_text(TEXT)
    quiet = dict(check=True, capture_output=True, text=True)
    subprocess.run([binaries / "llama-quantize", "--allow-requantize", model, f32, "F32"], **quiet)
    ids = subprocess.run([binaries / "llama-tokenize", "-m", model, "-f", text, "--ids", "--log-disable"], **quiet).stdout
    subprocess.run([binaries / "llama-imatrix", "-m", f32, "-f", text, "-o", out, "-c", "128", "--chunks", "2", "--no-ppl", "-t", "2"],
                   **quiet)
    reader = gguf.GGUFReader(out)
    tensors = {t.name: t.data.reshape(-1) for t in reader.tensors}
golden = {"ids": json.loads(ids)[:256], "weights": {}}
for name, data in sorted(tensors.items()):
    if name.endswith(".in_sum2"):
        weight = name.removesuffix(".in_sum2")
        golden["weights"][weight] = {"count": float(tensors[weight + ".counts"][0]), "total": float(data.astype("float64").sum()),
                                     "columns": [float(x) for x in data[:: len(data) // 8][:8]]}
target = pathlib.Path(__file__).parent / "imatrix.json"
target.write_text(json.dumps(golden) + "\n")
