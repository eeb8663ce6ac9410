"""Times the same LoRA step in Retort and in PEFT, in turn on the same machine, and prints the ratios of the medians.

    against_peft.py END_TO_END GGUF HF_FOLDER [--pairs 3] [--batch 4] [--seq 256] [--steps 5] [--end-to-end-args="--quant native"]

END_TO_END is build/release/bench/end_to_end; HF_FOLDER holds the same weights for transformers, in f32. Each run is a process of
its own, so peak memory is that of the step with its program; a run's first step is not counted. Needs torch, transformers, peft.
"""
import argparse
import json
import resource
import shlex
import statistics
import subprocess
import sys
import time

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("program")
p.add_argument("gguf")
p.add_argument("folder")
p.add_argument("--pairs", type=int, default=3)
p.add_argument("--batch", type=int, default=4)
p.add_argument("--seq", type=int, default=256)
p.add_argument("--steps", type=int, default=5)
p.add_argument("--threads", type=int, default=2)
p.add_argument("--end-to-end-args", default="", help="more arguments for END_TO_END")
p.add_argument("--only-peft", action="store_true", help=argparse.SUPPRESS)  # the child that trains with PEFT
a = p.parse_args()


def peft_steps():
    import peft
    import torch
    import transformers
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(a.folder, dtype=torch.float32)
    model.config.use_cache = False
    model = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.train()
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=2e-4)
    ids = torch.randint(0, model.config.vocab_size, (a.batch, a.seq))
    seconds = []
    for _ in range(a.steps):
        start = time.perf_counter()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"tokens_per_second": a.batch * a.seq / statistics.median(seconds[1:]),
                      "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def run(command):
    result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    return result["tokens_per_second"], result["peak_rss_bytes"] / 1e9


if a.only_peft:
    peft_steps()
    sys.exit()
ours, theirs = [], []
for _ in range(a.pairs):
    ours.append(run([a.program, "--model", a.gguf, "--batch", str(a.batch), "--seq", str(a.seq), "--steps", str(a.steps),
                     "--threads", str(a.threads), *shlex.split(a.end_to_end_args)]))
    theirs.append(run([sys.executable, __file__, *sys.argv[1:], "--only-peft"]))
    print(f"retort {ours[-1][0]:6.1f} tokens/s {ours[-1][1]:6.2f} GB    peft {theirs[-1][0]:6.1f} tokens/s {theirs[-1][1]:6.2f} GB",
          flush=True)
median = [[statistics.median(column) for column in zip(*runs)] for runs in (ours, theirs)]
print(f"median ratio: {median[0][0] / median[1][0]:.2f} x tokens/s, {median[0][1] / median[1][1]:.2f} of the memory "
      f"(pair by pair {min(o[0] / t[0] for o, t in zip(ours, theirs)):.2f} to {max(o[0] / t[0] for o, t in zip(ours, theirs)):.2f} x)")
