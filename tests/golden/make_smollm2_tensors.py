"""Writes smollm2_tensors.json: SHA-256 of every tensor (f32 bytes) of SmolLM2-135M-Instruct as transformers reads its GGUF.

    make_smollm2_tensors.py MODEL.gguf
"""
import hashlib
import json
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM

path = pathlib.Path(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
hashes = {name: hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
          for name, tensor in sorted(model.state_dict().items()) if name != "lm_head.weight"}
out = pathlib.Path(__file__).parent / "smollm2_tensors.json"
out.write_text(json.dumps(hashes, indent=0) + "\n")
