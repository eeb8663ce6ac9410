"""Ten steps of torch.optim.AdamW after clip_grad_norm_, for trainer/optimizer.h: writes adamw.json beside this file.

Parameters and gradients follow formulas that the test repeats, so that only results are stored. Gradients are large in some
steps (clipped) and small in others (left alone).
"""
import json
import math
import pathlib

import torch

SHAPES = [(3, 5), (7,), (2, 2, 2)]
STEPS, LR, MAX_NORM = 10, 0.01, 1.0
OPTIONS = {"betas": (0.9, 0.99), "eps": 1e-7, "weight_decay": 0.1}


def fill(shape, value):
    n = math.prod(shape)
    return torch.tensor([value(i) for i in range(n)], dtype=torch.float64).to(torch.float32).reshape(shape)


parameters = [torch.nn.Parameter(fill(s, lambda i, k=k: math.sin(0.37 * i + k))) for k, s in enumerate(SHAPES)]
optimizer = torch.optim.AdamW(parameters, lr=LR, **OPTIONS)
out = {"torch": torch.__version__, "shapes": SHAPES, "learning_rate": LR, "max_grad_norm": MAX_NORM,
       "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-7, "weight_decay": 0.1, "norms": [], "parameters": []}
for step in range(STEPS):
    for k, p in enumerate(parameters):
        size = 2.0 if step % 3 == 0 else 0.05
        p.grad = fill(p.shape, lambda i, k=k: size * math.cos(0.11 * i * (step + 1) + k))
    for group in optimizer.param_groups:
        group["lr"] = LR * (1 - 0.05 * step)
    out["norms"].append(torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM).item())
    optimizer.step()
    out["parameters"].append([p.detach().flatten().tolist() for p in parameters])
pathlib.Path(__file__).with_name("adamw.json").write_text(json.dumps(out) + "\n")
