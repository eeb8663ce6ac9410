"""Golden files for adapters: what PEFT makes of a small random Llama, in f64.   make_peft_lora.py [OUT_DIR]

OUT_DIR/peft_base/    the base in f32: config.json, model.safetensors
OUT_DIR/peft_<case>/  the adapter as PEFT saves it: adapter_config.json, adapter_model.safetensors
OUT_DIR/peft_<case>.safetensors  ids, labels, logits, loss, targets, "grad.<tensor>" of A and B, "merged.<module>"

Made with torch 2.11.0, transformers 5.17.0, peft 0.21.2.
"""
import pathlib
import shutil
import sys

import make_tiny_llama  # noqa: F401  transformers' Llama all in f64 from here on
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

CASES = {
    "lora": dict(r=4, lora_alpha=8, target_modules="all-linear"),
    "rslora": dict(r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj"], layers_to_transform=[0, 2]),
    "patterns": dict(r=3, lora_alpha=6, target_modules=r".*\.(q_proj|up_proj|down_proj)",
                     exclude_modules=["layers.2.mlp.down_proj"], alpha_pattern={"down_proj": 5},
                     rank_pattern={"up_proj": 2, r".*\.1\.self_attn\.q_proj": 6}),
    "head": dict(r=2, lora_alpha=4, target_modules=["o_proj", "lm_head"]),
}


def make_base(folder):
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
                         num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=False, bos_token_id=1,
                         eos_token_id=2)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for w in model.parameters():
            noise = torch.randn(w.shape)
            w.copy_(1 + 0.2 * noise if w.dim() == 1 else noise / w.shape[-1] ** 0.5)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()


def make_case(out, name, options):
    torch.manual_seed(2)
    base = LlamaForCausalLM.from_pretrained(out / "peft_base", dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for key, w in model.named_parameters():
            if "lora_" in key:
                w.copy_(torch.randn(w.shape) / w.shape[-1] ** 0.5)
    folder = out / f"peft_{name}"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace(str(out / "peft_base"), "peft_base"))

    base = LlamaForCausalLM.from_pretrained(out / "peft_base", dtype=torch.float64)
    model = PeftModel.from_pretrained(base, folder, is_trainable=True, autocast_adapter_dtype=False).double()
    ids = torch.randint(0, 48, (1, 13))
    logits = model(ids).logits[0]
    labels = torch.cat([ids[0, 1:], torch.tensor([-1])])
    labels[:3] = -1  # a prompt that is not trained
    loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
    loss.backward()
    tensors = {"ids": ids[0], "labels": labels, "logits": logits.detach(), "loss": loss.detach().reshape(1)}
    modules = set()
    for key, w in model.named_parameters():
        if w.requires_grad:
            tensors["grad." + key.replace(".default", "")] = w.grad
            modules.add(key.split(".lora_")[0])
    merged = dict(model.merge_and_unload().named_modules())
    for module in sorted(modules)[:4]:
        short = module.removeprefix("base_model.model.")
        tensors["merged." + short] = merged[short].weight.detach()
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / f"peft_{name}.safetensors")


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent).resolve()
    make_base(out / "peft_base")
    for name, options in CASES.items():
        make_case(out, name, options)
