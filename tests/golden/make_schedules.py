"""Learning-rate factors of transformers' get_scheduler for trainer/schedule.h: writes schedules.json beside this file."""
import json
import pathlib

import torch
import transformers
from transformers import get_scheduler

CASES = [  # name here, name and arguments in transformers, warm-up steps, steps
    ("constant", "constant_with_warmup", {}, 0, 6),
    ("constant", "constant_with_warmup", {}, 4, 10),
    ("linear", "linear", {}, 0, 7),
    ("linear", "linear", {}, 3, 20),
    ("cosine", "cosine", {}, 0, 9),
    ("cosine", "cosine", {}, 2, 23),
    ("cosine", "cosine_with_min_lr", {"min_lr_rate": 0.1}, 5, 31),
    ("warmup_stable_decay", "warmup_stable_decay", {"num_decay_steps": 4}, 3, 20),
    ("warmup_stable_decay", "warmup_stable_decay", {"num_decay_steps": 7, "min_lr_ratio": 0.2}, 5, 30),
]

out = {"transformers": transformers.__version__, "cases": []}
for name, theirs, extra, warmup, steps in CASES:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(theirs, optimizer, warmup, steps, scheduler_specific_kwargs=extra)
    factors = []
    for _ in range(steps):
        factors.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    out["cases"].append({"type": name, "warmup_steps": warmup, "steps": steps,
                         "decay_steps": extra.get("num_decay_steps", 0),
                         "min_lr_ratio": extra.get("min_lr_ratio", extra.get("min_lr_rate", 0.0)), "factors": factors})
pathlib.Path(__file__).with_name("schedules.json").write_text(json.dumps(out) + "\n")
