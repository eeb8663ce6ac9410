"""A report.json with every key that docs/report.md names, for the tests of the page and to look at it.

    python3 tests/golden/make_report_sample.py > tests/golden/report_sample.json
"""
import json
import math
import random
import sys

random.seed(7)
steps, warmup, peak = 188, 9, 5e-4
curve = []
for step in range(1, steps + 1):
    rate = peak * step / warmup if step <= warmup else peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
    point = {"step": step, "loss": round(0.46 + 2.9 * math.exp(-step / 14) + random.gauss(0, 0.11 + 0.5 * math.exp(-step / 10)), 4),
             "learning_rate": rate}
    if step % 20 == 0 or step == steps:
        point["validation_loss"] = round(0.55 + 2.4 * math.exp(-step / 16), 4)
    curve.append(point)

ROWS = [
    ("Ethernet", "A local area network first described by Metcalfe & Boggs of Xerox PARC in 1976. Specified by DEC, Intel and XEROX (DIX) as IEEE 802.3 and now recognised as the industry standard.", "networking", "Ethernet is a type of network that", "networking"),
    ("quicksort", "A sorting algorithm with O(n log n) average time complexity. One element, x of the list to be sorted is chosen and the other elements are split into those elements less than x and those greater than or equal to x.", "programming", "The term is: quicksort", "programming"),
    ("Haskell", "(Named after the logician Haskell Curry) A lazy purely functional language largely derived from Miranda but with several extensions.", "language", "language", "language"),
    ("glitch", "/glich/ [German \"glitschen\" to slip, via Yiddish \"glitshen\", to slide or skid] 1. (Electronics) When the inputs of a circuit change, and the outputs change to some random value for some very brief time before they settle down to the correct value.", "jargon", "hardware", "jargon"),
    ("Sun Microsystems", "A manufacturer of Unix workstations and servers, the originator of the Java language and of the NFS protocol.", "company", "Sun Microsystems is a company", "company"),
    ("B-tree", "A multi-way balanced tree. The \"B\" in B-tree has never been officially defined.", "mathematics", "programming", "programming"),
    ("<script>alert(\"row\")</script>", "A row that tries to be code: <img src=x onerror=alert(1)> & 'quotes' \"too\"", "jargon", "</script><script>alert(1)</script>", "jargon"),
    ("VMS", "(Virtual Memory System) DEC's proprietary operating system originally produced for its VAX minicomputer.", "operating system", "operating", "operating system"),
    ("dBASE", "An interactive database system, originally by Ashton-Tate.", "database", "software", "database"),
    ("V.32bis", "An ITU-T standard modem modulation for data rates up to 14.4 kilobits per second.", "communications", "V.32bis is", "communications"),
    ("make", "The Unix tool to automate the recompilation, linking etc. of programs, taking account of the interdependencies of modules and their modification times.", "tool", "tool", "tool"),
    ("RAID", "A standard naming convention for various ways of using multiple disk drives to provide redundancy and distributed I/O.", "storage", "hardware", "storage"),
]
samples = [{"key": key, "prompt": f"Which category does this entry of a dictionary of computing belong to?\n\nTerm: {key}\nDefinition: {text}",
            "expected": expected, "base": base, "tuned": tuned} for key, text, expected, base, tuned in ROWS]

shapes = {"q_proj": (576, 576), "k_proj": (192, 576), "v_proj": (192, 576), "o_proj": (576, 576),
          "gate_proj": (1536, 576), "up_proj": (1536, 576), "down_proj": (576, 1536)}
targets = [{"name": name, "count": 30, "shape": list(shape), "parameters": 30 * 16 * sum(shape)} for name, shape in shapes.items()]

report = {
    "schema": 1, "name": "foldoc-categories", "retort": "0.1.0", "created": "2026-11-23 07:41 UTC",
    "seconds": {"total": 461.2, "train": 388.4, "export": 9.7, "evaluate": 52.9},
    "chat": {"system": ""},
    "model": {"name": "SmolLM2 135M Instruct", "path": "SmolLM2-135M-Instruct.Q4_1.gguf", "hub_id": "HuggingFaceTB/SmolLM2-135M-Instruct",
              "family": "llama", "license": "apache-2.0", "base": "native", "layers": 30, "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    "adapter": {"kind": "lora", "r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "use_rslora": False, "target_modules": "all-linear"},
    "data": {"ledger": {"rows": 1500, "tokens": 189417, "trained_tokens": 4512, "truncated": 3, "dropped": {"longer than 512 tokens": 4}},
             "files": [{"name": "foldoc", "split": "train", "sha256": "5d0a26c1b9"}, {"name": "foldoc", "split": "validation", "sha256": "5d0a26c1b9"}]},
    "train": {"steps": steps, "tokens": 189417, "trained_tokens": 4512, "tokens_per_second": 487.6, "peak_memory_bytes": 1310000000,
              "loss_first": curve[0]["loss"], "loss_last": curve[-1]["loss"], "best_step": 180,
              "parameters": {"trainable": sum(t["parameters"] for t in targets), "frozen": 134515008},
              "options": {"num_train_epochs": 1, "micro_batch_size": 8, "learning_rate": 5e-4, "lr_scheduler_type": "cosine", "warmup_ratio": 0.05, "optimizer": "adamw", "max_grad_norm": 1.0},
              "targets": targets, "curve": curve},
    "export": [
        {"format": "gguf", "type": "Q4_K_M", "path": "export/foldoc-categories-Q4_K_M.gguf", "bytes": 105454432, "bits_per_weight": 6.27,
         "f32_merge": {"type": "F32", "kl_mean": 0.00021}, "sha256": "7c1f0a9e4b",
         "gate": {"passed": True, "kl_mean": 0.0142, "kl_p99": 0.171, "top1": 0.962, "delta_perplexity": 0.031, "rows": 64,
                  "limits": {"max_kl": 0.05, "max_kl_p99": 0.6, "min_top1": 0.9}},
         "speed": {"prompt_tokens_per_second": 612.4, "generation_tokens_per_second": 88.3, "first_token_seconds": 0.231, "memory_bytes": 214000000}},
        {"format": "gguf", "type": "Q2_K", "path": "export/foldoc-categories-Q2_K.refused.gguf", "bytes": 88202400, "bits_per_weight": 5.24,
         "gate": {"passed": False, "kl_mean": 0.412, "kl_p99": 3.4, "top1": 0.71, "delta_perplexity": 4.2, "rows": 64, "limits": {"max_kl": 0.3, "min_top1": 0.8},
                  "reasons": ["mean KL 0.412 is above the limit 0.3"]}},
        {"format": "gguf_adapter", "path": "export/foldoc-categories-lora.gguf", "bytes": 9790000},
        {"format": "peft", "path": "adapter", "bytes": 19600000},
    ],
    "evaluate": [
        {"kind": "choice_accuracy", "data": "validation", "on": "base", "value": 0.2217, "stderr": 0.0285, "n": 212, "majority": 0.2115},
        {"kind": "choice_accuracy", "data": "validation", "on": "trained", "value": 0.7783, "stderr": 0.0285, "n": 212, "majority": 0.2115},
        {"kind": "choice_accuracy", "data": "validation", "on": "shipped:Q4_K_M", "value": 0.7736, "stderr": 0.0287, "n": 212, "majority": 0.2115},
        {"kind": "perplexity", "data": "validation", "on": "base", "value": 21.7, "stderr": 1.9, "n": 212},
        {"kind": "perplexity", "data": "validation", "on": "trained", "value": 1.74, "stderr": 0.06, "n": 212},
        {"kind": "perplexity", "data": "validation", "on": "shipped:Q4_K_M", "value": 1.77, "stderr": 0.06, "n": 212},
    ],
    "samples": samples,
    "environment": {"retort": "0.1.0", "llama.cpp": "b9121", "libtorch": "2.11.0", "compiler": "GCC 12.2.0", "device": "cpu (2 threads, AVX-512)",
                    "system": "Debian GNU/Linux 12", "seed": 42, "data_hash": "f00dfeed01"},
    "recipe": "name: foldoc-categories\nseed: 42\nmodel:\n  path: smollm2\n  base: native\nadapter:\n  kind: lora\n  r: 16\n",
}
json.dump(report, sys.stdout, indent=1)
print()
