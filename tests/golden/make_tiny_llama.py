"""Tiny random models of the llama family with what transformers and PEFT compute for them in f64.

    make_tiny_llama.py [OUT]        # default: tiny_llama/ beside this file

OUT/<variant>/config.json and model.safetensors (bf16) are the model as Hugging Face writes it; expected.safetensors holds
ids and labels i64 [T] (label -1: not trained), logits f64 [T, V], loss f64 (sum of cross entropies), and for each linear
<module>.lora_A, <module>.lora_B and their gradients *.grad. LoRA's scale is 2 everywhere.

transformers computes norms, softmax and rotary angles in f32 even in an f64 model; here its own source is run with that type
replaced, so that everything is f64.
"""
import importlib
import inspect
import pathlib
import re
import sys

import torch
import transformers.modeling_rope_utils


def in_f64(module):
    source = inspect.getsource(module)
    source = re.sub(r"torch\.float(32)?\b", "torch.float64", source).replace(".float()", ".double()")
    exec(compile(source, module.__file__, "exec"), module.__dict__)


in_f64(transformers.modeling_rope_utils)
for name in ("llama", "mistral"):
    in_f64(importlib.import_module(f"transformers.models.{name}.modeling_{name}"))

import peft
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, logging

small = dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=24, intermediate_size=32,
             vocab_size=40, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=1,
             eos_token_id=2, pad_token_id=0)
plain = dict(rope_type="default", rope_theta=1e4)
llama3 = dict(rope_type="llama3", rope_theta=5e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)
VARIANTS = {
    "grouped": ("llama", dict(rope_parameters=plain)),
    "biases": ("llama", dict(rope_parameters=llama3, attention_bias=True, mlp_bias=True, tie_word_embeddings=True)),
    "head_dim": ("mistral", dict(rope_parameters=dict(plain, rope_theta=1e6), head_dim=10, sliding_window=None)),
    "window": ("mistral", dict(rope_parameters=plain, sliding_window=5, tie_word_embeddings=True, num_key_value_heads=1)),
}


def make(kind, options, out, gen):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**small, **options}), dtype=torch.float64)
    with torch.no_grad():
        for w in model.parameters():
            noise = torch.randn(w.shape, generator=gen, dtype=torch.float64)
            w.copy_((w + 0.2 * noise if w.dim() == 1 else noise / w.shape[-1] ** 0.5).bfloat16())
    model.to(torch.bfloat16).save_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float64, attn_implementation="eager")
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=r".*(_proj|lm_head)$", task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config).double()
    tensors = {}
    for name, w in model.named_parameters():
        if "lora_" in name:
            with torch.no_grad():
                w.copy_((0.3 * torch.randn(w.shape, generator=gen, dtype=torch.float64)).bfloat16())
    ids = torch.randint(3, 40, (19,), generator=gen)
    labels = torch.cat([ids[1:], torch.tensor([-1])])
    labels[2:5] = -1
    logits = model(input_ids=ids[None]).logits[0]
    assert logits.dtype == torch.float64
    loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
    loss.backward()
    for name, w in model.named_parameters():
        if w.requires_grad:
            key = name.removeprefix("base_model.model.").removesuffix(".default.weight")
            tensors[key], tensors[key + ".grad"] = w.detach().bfloat16(), w.grad
    tensors.update(ids=ids, labels=labels, logits=logits.detach().contiguous(), loss=loss.detach())
    save_file(tensors, out / "expected.safetensors")
    (out / "generation_config.json").unlink(missing_ok=True)
    print(f"{out.name}: loss {loss.item():.6f}, {sum(f.stat().st_size for f in out.iterdir())} bytes")


if __name__ == "__main__":
    logging.set_verbosity_error()
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "tiny_llama"
    for i, (variant, (kind, options)) in enumerate(VARIANTS.items()):
        make(kind, options, root / variant, torch.Generator().manual_seed(i))
