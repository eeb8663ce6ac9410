"""Ten steps of each optimizer by torch.optim, transformers, bitsandbytes and PEFT, for trainer/optimizers: writes
optimizers.json and optimizers.safetensors beside this file.

Each case is the recipe's train block that the test reads, and the peer's optimizer with the same options. Parameters and
gradients follow formulas that the test repeats, so that only results are stored: "<case>/<step>/<parameter>[.<state>]".
"""
import json
import math
import pathlib

import bitsandbytes
import peft
import torch
import transformers
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import save_file
from transformers.optimization import Adafactor as HuggingFaceAdafactor

STEPS, KEPT, LR = 10, (1, 2, 10), 0.01
SMALL = {"a": (6, 5), "b": (3, 7), "vector": (7,)}
LARGE = {"odd": (67, 77), "small": (7,), "zero": (64, 64)}


def fill(shape, value):
    return torch.tensor([value(i) for i in range(math.prod(shape))], dtype=torch.float64).to(torch.float32).reshape(shape)


def parameter(shape, k):
    return fill(shape, lambda i: math.sin(0.37 * i + k))


def gradient(name, shape, k, step):
    """Sizes over six powers of ten, as the blocks of 8-bit states meet them; "zero" has none, like A of LoRA at first."""
    if name == "zero" and step < 2:
        return torch.zeros(shape)
    return fill(shape, lambda i: 10.0 ** -((i + k) % 6) * math.cos(0.11 * i * (step + 1) + k))


cases, tensors = [], {}


def run(name, train, shapes, make, states=()):
    """`make`: named parameters -> optimizer. Every learning rate falls linearly, as a schedule would have it."""
    named = {n: torch.nn.Parameter(parameter(s, k)) for k, (n, s) in enumerate(shapes.items())}
    optimizers = make(named)
    if not isinstance(optimizers, list):
        optimizers = [optimizers]
    highest = [[g["lr"] for g in o.param_groups] for o in optimizers]
    for step in range(STEPS):
        for k, (n, p) in enumerate(named.items()):
            p.grad = gradient(n, p.shape, k, step)
        for o, rates in zip(optimizers, highest):
            for g, rate in zip(o.param_groups, rates):
                g["lr"] = rate * (1 - 0.05 * step)
            o.step()
        if step + 1 in KEPT:
            for n, p in named.items():
                tensors[f"{name}/{step + 1}/{n}"] = p.detach().clone()
                for state in states:
                    if state in optimizers[0].state[p]:
                        tensors[f"{name}/{step + 1}/{n}.{state}"] = optimizers[0].state[p][state].clone()
    cases.append({"name": name, "train": {"learning_rate": LR, **train},
                  "parameters": [{"name": n, "shape": list(s)} for n, s in shapes.items()]})


matrices = {n: s for n, s in SMALL.items() if len(s) == 2}
values = lambda named: list(named.values())
run("sgd", {"optimizer": "sgd", "weight_decay": 0.1}, SMALL, lambda n: torch.optim.SGD(values(n), LR, weight_decay=0.1))
run("sgd_momentum", {"optimizer": "sgd", "optim_args": {"momentum": 0.9, "dampening": 0.25}}, SMALL,
    lambda n: torch.optim.SGD(values(n), LR, momentum=0.9, dampening=0.25), ["momentum_buffer"])
run("sgd_nesterov", {"optimizer": "sgd", "weight_decay": 0.1, "optim_args": {"momentum": 0.9, "nesterov": True}}, SMALL,
    lambda n: torch.optim.SGD(values(n), LR, momentum=0.9, nesterov=True, weight_decay=0.1), ["momentum_buffer"])
run("lion", {"optimizer": "lion", "weight_decay": 0.1, "adam_beta1": 0.95, "adam_beta2": 0.98}, SMALL,
    lambda n: bitsandbytes.optim.Lion(values(n), LR, betas=(0.95, 0.98), weight_decay=0.1))
run("lion_default", {"optimizer": "lion"}, SMALL, lambda n: bitsandbytes.optim.Lion(values(n), LR))
run("adafactor_torch", {"optimizer": "adafactor", "weight_decay": 0.1,
                        "optim_args": {"scale_parameter": True, "decay_rate": -0.7, "clip_threshold": 1.5}}, SMALL,
    lambda n: torch.optim.Adafactor(values(n), LR, weight_decay=0.1, beta2_decay=-0.7, d=1.5), ["row_var", "col_var", "variance"])
run("adafactor", {"optimizer": "adafactor", "weight_decay": 0.1}, SMALL,
    lambda n: HuggingFaceAdafactor(values(n), LR, weight_decay=0.1, scale_parameter=False, relative_step=False))
run("muon_original", {"optimizer": "muon", "weight_decay": 0.1,
                      "optim_args": {"adjust_lr_fn": "original", "momentum": 0.9, "nesterov": False, "ns_steps": 3}}, matrices,
    lambda n: torch.optim.Muon(values(n), LR, weight_decay=0.1, momentum=0.9, nesterov=False, ns_steps=3), ["momentum_buffer"])
run("muon", {"optimizer": "muon", "weight_decay": 0.1}, SMALL,
    lambda n: [torch.optim.Muon([p for p in values(n) if p.ndim == 2], LR, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
               torch.optim.AdamW([p for p in values(n) if p.ndim != 2], LR, weight_decay=0.1)])
eight = ["state1", "state2", "absmax1", "absmax2"]
run("adamw_8bit", {"optimizer": "adamw_8bit"}, LARGE, lambda n: bitsandbytes.optim.AdamW8bit(values(n), LR, weight_decay=0), eight)
run("adamw_8bit_decay", {"optimizer": "adamw_8bit", "weight_decay": 0.1, "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-6},
    LARGE, lambda n: bitsandbytes.optim.AdamW8bit(values(n), LR, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6), eight)


class Base(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens, self.q_proj = torch.nn.Embedding(6, 5), torch.nn.Linear(5, 4)


def loraplus(name, train, **adapter):
    """PEFT's groups over its own model, whose parameters become the case's."""
    model = peft.get_peft_model(Base(), peft.LoraConfig(r=2, **adapter))
    ours = {n.removeprefix("base_model.model.").replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}

    def make(named):
        for k, (n, p) in enumerate(ours.items()):
            p.data.copy_(parameter(p.shape, k))
            named[n] = p
        return create_loraplus_optimizer(model, torch.optim.AdamW, lr=LR, loraplus_weight_decay=train["weight_decay"],
                                         **{k: v for k, v in train.items() if k.startswith("loraplus")})
    run(name, train, {n: tuple(p.shape) for n, p in ours.items()}, make)


loraplus("loraplus", {"loraplus_lr_ratio": 8, "loraplus_lr_embedding": 0.003, "weight_decay": 0.1},
         target_modules=["q_proj", "embed_tokens"], use_dora=True)
loraplus("loraplus_bias", {"loraplus_lr_ratio": 16, "weight_decay": 0.1}, target_modules=["q_proj"], lora_bias=True)

here = pathlib.Path(__file__).parent
versions = {m.__name__: m.__version__ for m in (torch, transformers, bitsandbytes, peft)}
(here / "optimizers.json").write_text(json.dumps({"versions": versions, "steps": STEPS, "kept": KEPT, "cases": cases}, indent=1) + "\n")
save_file(tensors, here / "optimizers.safetensors")
(here / "optimizers.safetensors").chmod(0o644)
