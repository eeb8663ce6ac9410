"""Golden files for adapters: what PEFT makes of a small random Llama, in f64.   make_peft.py [OUT_DIR]

OUT_DIR/peft_base/    the base in f32: config.json, model.safetensors
OUT_DIR/peft_biased/  another, with a bias in every linear layer but the head; peft_tied/  one whose head is its embedding
OUT_DIR/peft_<case>/  the adapter as PEFT saves it: adapter_config.json, adapter_model.safetensors
OUT_DIR/peft_<case>.safetensors  ids, labels, logits, loss, targets, "grad.<tensor>" of what is trained, "merged.<tensor>"
OUT_DIR/peft_starts.safetensors  for init_lora_weights from the weight: "<init>.start.<module>" = scale * B A at the start, and with
                                 other A and B ("<init>.<tensor>") on the base that PEFT changed: logits, loss, gradients

Made with torch 2.11.0, transformers 5.17.0, peft 0.21.2.
"""
import pathlib
import re
import shutil
import sys

import make_tiny_llama  # noqa: F401  transformers' Llama all in f64 from here on
import torch
from peft import IA3Config, LoraConfig, PeftModel, VeraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

CASES = {
    "lora": LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"),
    "rslora": LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj"], layers_to_transform=[0, 2]),
    "patterns": LoraConfig(r=3, lora_alpha=6, target_modules=r".*\.(q_proj|up_proj|down_proj)",
                           exclude_modules=["layers.2.mlp.down_proj"], alpha_pattern={"down_proj": 5},
                           rank_pattern={"up_proj": 2, r".*\.1\.self_attn\.q_proj": 6}),
    "head": LoraConfig(r=2, lora_alpha=4, target_modules=["o_proj", "lm_head"]),
    "bias": LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "o_proj", "down_proj"], lora_bias=True),
    "dora": LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", use_dora=True),
    "vera": VeraConfig(r=6, target_modules=["q_proj", "v_proj", "down_proj"], projection_prng_key=5),
    "ia3": IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
}
CASES |= {
    "embedding": LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "embed_tokens"]),
    "saved": LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"]),
    "tokens": LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj"], trainable_token_indices=[3, 40, 7]),
    "tied_tokens": LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj"], trainable_token_indices=[3, 40, 7]),
}
BASES = {"bias": "peft_biased", "ia3": "peft_biased", "tied_tokens": "peft_tied"}


def make_base(folder, biases=False, tied=False):
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
                         num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=tied, bos_token_id=1,
                         eos_token_id=2, attention_bias=biases, mlp_bias=biases)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, w in model.named_parameters():
            noise = torch.randn(w.shape)
            if name.endswith(".bias"):
                w.copy_(0.3 * noise)
            else:
                w.copy_(1 + 0.2 * noise if w.dim() == 1 else noise / w.shape[-1] ** 0.5)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()


def randomize(model):
    with torch.no_grad():
        for key, w in model.named_parameters():
            if not w.requires_grad:
                continue
            if "modules_to_save" in key or "trainable_tokens" in key:
                w.add_(0.2 * torch.randn(w.shape))
            elif "magnitude" in key:
                w.mul_(1 + 0.2 * torch.randn(w.shape))
            elif "ia3_l" in key:
                w.copy_(1 + 0.3 * torch.randn(w.shape))
            else:
                w.copy_(torch.randn(w.shape) / w.shape[-1] ** 0.5)


def file_name(key):
    return key.replace(".default", "").replace("vector.weight", "vector").replace(".modules_to_save", "")


def run(model):
    ids = torch.randint(0, 48, (1, 13))
    logits = model(ids).logits[0]
    labels = torch.cat([ids[0, 1:], torch.tensor([-1])])
    labels[:3] = -1  # a prompt that is not trained
    loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
    loss.backward()
    tensors = {"ids": ids[0], "labels": labels, "logits": logits.detach(), "loss": loss.detach().reshape(1)}
    for key, w in model.named_parameters():
        if w.requires_grad:
            tensors["grad." + file_name(key)] = w.grad
    return tensors


def make_case(out, name, config):
    base_folder = out / BASES.get(name, "peft_base")
    torch.manual_seed(2)
    config.task_type = "CAUSAL_LM"
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base_folder, dtype=torch.float32), config)
    randomize(model)
    folder = out / f"peft_{name}"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    config_file = folder / "adapter_config.json"
    config_file.write_text(config_file.read_text().replace(str(base_folder), base_folder.name))

    base = LlamaForCausalLM.from_pretrained(base_folder, dtype=torch.float64)
    model = PeftModel.from_pretrained(base, folder, is_trainable=True, autocast_adapter_dtype=False).double()
    tensors = run(model)
    modules = {re.split(r"\.(?:lora_|vera_|ia3_|token_adapter|weight|bias)", k)[0].removeprefix("grad.base_model.model.") for k in tensors if "grad." in k}
    merged = dict(model.merge_and_unload().named_parameters())
    for module in sorted(modules)[:4]:
        for tensor in (module + ".weight", module + ".bias"):
            if tensor in merged:
                tensors["merged." + tensor] = merged[tensor].detach()
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / f"peft_{name}.safetensors")


def make_starts(out):
    tensors = {}
    for init in ("pissa", "olora"):
        torch.manual_seed(3)
        base = LlamaForCausalLM.from_pretrained(out / "peft_base", dtype=torch.float32)  # PiSSA takes no f64
        config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], init_lora_weights=init, task_type="CAUSAL_LM")
        model = get_peft_model(base, config).double()
        for name, module in model.named_modules():
            if hasattr(module, "lora_A"):
                start = module.scaling["default"] * module.lora_B["default"].weight @ module.lora_A["default"].weight
                tensors[f"{init}.start.{name.removeprefix('base_model.model.')}"] = start.detach()
        randomize(model)
        for key, w in model.named_parameters():
            if w.requires_grad:
                tensors[f"{init}.{key.replace('.default', '').removeprefix('base_model.model.')}"] = w.detach().clone()
        tensors.update({f"{init}.{k}": v for k, v in run(model).items()})
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / "peft_starts.safetensors")


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent).resolve()
    make_base(out / "peft_base")
    make_base(out / "peft_biased", biases=True)
    make_base(out / "peft_tied", tied=True)
    for name, config in CASES.items():
        make_case(out, name, config)
    make_starts(out)
