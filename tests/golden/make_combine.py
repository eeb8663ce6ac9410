"""Golden file for combined adapters: what PEFT's add_weighted_adapter makes of those of make_peft.py.   make_combine.py [DIR]

DIR/combine.safetensors  "<case>.<module>.A" and ".B" where adapters are combined factor by factor, ".product" = B A elsewhere
                         (what an SVD gives has signs of its own)
What DARE drops is random: torch.bernoulli is replaced by numbers drawn from a seed that names module, factor and adapter, as
Retort draws them, so that both drop the same.

Made with torch 2.11.0, transformers 5.17.0, peft 0.21.2, xxhash 3.
"""
import pathlib
import sys

import torch
import xxhash
from peft import PeftModel
from peft.tuners.lora import LoraModel
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

# type, adapters, weights, options; tests/adapters/combine_test.cpp has the same list
CASES = {
    "linear": ("linear", ["lora", "rslora"], [0.7, -0.4], {}),
    "cat": ("cat", ["lora", "rslora", "head"], [0.7, -0.4, 1.5], {}),
    "svd": ("svd", ["lora", "rslora", "head"], [0.7, 0.4, 1.5], {"svd_rank": 3}),
    "svd_largest": ("svd", ["lora", "head"], [1.0, 1.0], {}),
    "ties": ("ties", ["lora", "rslora"], [0.7, 0.4], {"density": 0.4}),
    "ties_svd": ("ties_svd", ["lora", "rslora"], [0.7, 0.4], {"density": 0.4, "svd_rank": 5}),
    "dare_linear": ("dare_linear", ["lora", "rslora"], [0.7, -0.4], {"density": 0.6}),
    "dare_linear_svd": ("dare_linear_svd", ["lora", "rslora"], [0.7, 0.4], {"density": 0.6}),
    "dare_ties": ("dare_ties", ["lora", "rslora"], [0.7, 0.4], {"density": 0.6}),
    "dare_ties_svd": ("dare_ties_svd", ["lora", "rslora"], [0.7, 0.4], {"density": 0.6}),
    "magnitude_prune": ("magnitude_prune", ["lora", "rslora"], [0.7, 0.4], {"density": 0.3}),
    "magnitude_prune_svd": ("magnitude_prune_svd", ["lora", "rslora"], [0.7, 0.4], {"density": 0.3}),
}
MODULES = ("layers.0.self_attn.q_proj", "layers.2.self_attn.v_proj", "layers.1.mlp.down_proj", "layers.0.self_attn.o_proj")
SEED = 9
keys = []


def bernoulli(probabilities):
    generator = torch.Generator().manual_seed(xxhash.xxh3_64_intdigest(keys.pop(0).encode()))
    drawn = torch.rand(probabilities.shape, generator=generator, dtype=torch.float32)
    return (drawn < probabilities.flatten()[0].item()).to(probabilities.dtype)


def naming(function, factors):
    """Before PEFT combines one module: the keys of its random numbers, in the order in which it asks for them."""
    def wrapped(self, kind, adapters, *arguments, **named):
        target = next(x for x in arguments if hasattr(x, "lora_A"))
        module = next(n for n, m in self.model.named_modules() if m is target)
        numbers = [i for i, name in enumerate(adapters) if name in target.lora_A]
        keys[:] = [f"{SEED} {module}{factor} {i}" for factor in factors for i in numbers]
        return function(self, kind, adapters, *arguments, **named)
    return wrapped


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent).resolve()
    torch.set_default_dtype(torch.float64)
    torch.bernoulli = bernoulli
    LoraModel._generalized_task_arithmetic_weighted_adapter = naming(
        LoraModel._generalized_task_arithmetic_weighted_adapter, (" A", " B"))
    LoraModel._svd_generalized_task_arithmetic_weighted_adapter = naming(
        LoraModel._svd_generalized_task_arithmetic_weighted_adapter, ("",))
    base = LlamaForCausalLM.from_pretrained(out / "peft_base", dtype=torch.float64)
    model = PeftModel.from_pretrained(base, out / "peft_lora", adapter_name="lora", autocast_adapter_dtype=False)
    for name in ("rslora", "head"):
        model.load_adapter(out / f"peft_{name}", adapter_name=name, autocast_adapter_dtype=False)
    model = model.double()
    tensors = {}
    for case, (kind, adapters, weights, options) in CASES.items():
        model.add_weighted_adapter(adapters, weights, case, combination_type=kind, **options)
        for name, module in model.named_modules():
            if not (name.endswith(MODULES) and hasattr(module, "lora_A") and case in module.lora_A):
                continue
            assert module.scaling[case] == 1
            a, b = module.lora_A[case].weight.detach(), module.lora_B[case].weight.detach()
            name = f"{case}.{name.removeprefix('base_model.model.')}"
            parts = {".product": b @ a} if kind == "cat" or kind.endswith("svd") else {".A": a, ".B": b}
            tensors.update({name + part: value.float().contiguous() for part, value in parts.items()})
    save_file(tensors, out / "combine.safetensors")
