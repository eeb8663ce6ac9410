"""Does PEFT read what Retort writes?   check_peft_reads.py RETORT_PROGRAM

For each adapter of make_peft.py: `retort export --format peft` writes it again, PEFT loads that folder on the same base, and
its logits are compared with `retort logits`. PEFT must not warn of missing or unexpected keys. Run by hand: the tests need no
Python.
"""
import pathlib
import subprocess
import sys
import tempfile
import warnings

import torch
from make_peft import BASES, CASES
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

golden = pathlib.Path(__file__).resolve().parent
ids = [1, 5, 9, 30, 12, 47, 3]
with tempfile.TemporaryDirectory() as folder:
    for case in CASES:
        base_folder = golden / BASES.get(case, "peft_base")
        adapter, logits = f"{folder}/{case}", f"{folder}/{case}.safetensors"
        common = ["--model", base_folder]
        subprocess.run([sys.argv[1], "export", *common, "--adapter", golden / f"peft_{case}", "--format", "peft", "--out", adapter],
                       check=True)
        subprocess.run([sys.argv[1], "logits", *common, "--adapter", adapter, "--ids", ",".join(map(str, ids)), "--out", logits],
                       check=True)
        base = LlamaForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = PeftModel.from_pretrained(base, adapter)
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0]
        error = (load_file(logits)["logits"] - expected).abs().max() / expected.abs().max()
        print(f"{case}: largest relative difference {error:.1e}")
        assert error < 1e-5
