"""Trains with PEFT on the rows that Retort packed, with as many steps and the same learning rate; saves a PEFT folder.

    peft_train.py DATASET.h5 HF_FOLDER OUT_FOLDER --steps N [--lr 5e-4] [--threads 2]

DATASET.h5 is a file that `retort run` left in its cache (datasets/<key>.h5: ids, trained, document_tokens). Rows are taken in a
seeded random order, padded to the longest of their batch, as transformers does. Prints one JSON line.
Compare:  retort eval --model BASE.gguf --adapter OUT_FOLDER --recipe RECIPE
"""
import argparse
import json
import math
import time

import h5py
import numpy
import peft
import torch
import transformers

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("dataset")
p.add_argument("model")
p.add_argument("out")
p.add_argument("--lr", type=float, default=5e-4)
p.add_argument("--steps", type=int, required=True, help="steps of the one epoch; the rows are divided evenly")
p.add_argument("--warmup", type=float, default=0.05)
p.add_argument("--r", type=int, default=16)
p.add_argument("--seed", type=int, default=42)
p.add_argument("--threads", type=int, default=2)
a = p.parse_args()

torch.set_num_threads(a.threads)
torch.manual_seed(a.seed)
with h5py.File(a.dataset) as f:
    ids, trained, lengths = f["ids"][:].ravel(), f["trained"][:].ravel(), f["document_tokens"][:].ravel()
ends = numpy.cumsum(lengths)
rows = [(ids[e - n:e], trained[e - n:e]) for e, n in zip(ends, lengths)]
model = transformers.AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
model.config.use_cache = False
model = peft.get_peft_model(model, peft.LoraConfig(
    r=a.r, lora_alpha=2 * a.r, target_modules="all-linear", task_type="CAUSAL_LM"))
model.train()
weights = [w for w in model.parameters() if w.requires_grad]
optimizer = torch.optim.AdamW(weights, lr=a.lr, weight_decay=0.0)
schedule = transformers.get_cosine_schedule_with_warmup(optimizer, math.ceil(a.warmup * a.steps), a.steps)
order = numpy.random.default_rng(a.seed).permutation(len(rows))
start, losses, tokens = time.perf_counter(), [], 0
for step in range(a.steps):
    chosen = [rows[i] for i in order[step * len(rows) // a.steps:(step + 1) * len(rows) // a.steps]]
    width = max(len(i) for i, _ in chosen)
    batch = torch.zeros(len(chosen), width, dtype=torch.long)
    labels = torch.full_like(batch, -100)
    mask = torch.zeros_like(batch)
    for n, (i, t) in enumerate(chosen):
        batch[n, :len(i)] = torch.from_numpy(i.astype(numpy.int64))
        labels[n, :len(i)] = torch.where(torch.from_numpy(t.astype(bool)), batch[n, :len(i)], -100)
        mask[n, :len(i)] = 1
    loss = model(input_ids=batch, attention_mask=mask, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    losses.append(loss.item())
    tokens += int(mask.sum())
model.save_pretrained(a.out)
seconds = time.perf_counter() - start
print(json.dumps({"steps": a.steps, "rows": len(rows), "tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds,
                  "loss_first": losses[0], "loss_last_10": sum(losses[-10:]) / len(losses[-10:])}))
