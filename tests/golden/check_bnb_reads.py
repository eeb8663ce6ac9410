"""Does transformers + bitsandbytes read what Retort writes?   check_bnb_reads.py RETORT_PROGRAM [MODEL ...]

`retort quantize` writes peft_base, and each MODEL (GGUF file or folder), in each format; transformers loads that folder, without a
word about missing or unexpected tensors; its weights, dequantized by bitsandbytes, must give the logits that `retort logits` gives.
Run by hand: the tests need no Python.
"""
import pathlib
import subprocess
import sys
import tempfile

import torch
from make_bnb import dense_twin
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

golden = pathlib.Path(__file__).resolve().parent
ids = [1, 5, 9, 30, 12, 47, 3]
with tempfile.TemporaryDirectory() as folder:
    for source in (golden / "peft_base", *sys.argv[2:]):
        for kind in ("nf4", "nf4_dq", "fp4", "fp4_dq", "int8"):
            out, logits = f"{folder}/{kind}", f"{folder}/logits.safetensors"
            subprocess.run([sys.argv[1], "quantize", source, "--type", kind, "--out", out], check=True, stdout=subprocess.DEVNULL)
            subprocess.run([sys.argv[1], "logits", "--model", out, "--ids", ",".join(map(str, ids)), "--out", logits], check=True,
                           stdout=subprocess.DEVNULL)
            model, info = AutoModelForCausalLM.from_pretrained(out, device_map="cpu", dtype=torch.float32, output_loading_info=True)
            assert not any(info.values()), info
            with torch.no_grad():
                expected = dense_twin(model)(torch.tensor([ids])).logits[0]
            error = (load_file(logits)["logits"] - expected).abs().max() / expected.abs().max()
            print(f"{pathlib.Path(source).name} in {kind}: largest relative difference {error:.1e}")
            assert error < 1e-5
