"""Trains the same student in several ways at equal tokens, and writes the table in docs/distillation.md.

    distill_proof.py RETORT RECIPE --out runs.jsonl [--arms ce,online,drawn,clustered,ghost,top128] [--seeds 1,2,3] [key=value ...]
    distill_proof.py --table runs.jsonl            # prints the table of what was run

Each run is `retort run RECIPE` with the arm's keys. Seeds change the adapter's start and the order of the rows. KL is
KL(teacher || student) on the held-out rows with all logits of both, in nats a token; perplexity is the student's there. Intervals
are one standard error over the seeds, which also change what cross entropy alone reaches: differences are taken seed by seed. Runs that are in --out already are not made again.
"""
import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys

ARMS = {
    "ce": ("cross entropy alone", ["distill.kd_ratio=0"]),
    "online": ("KD, all logits, teacher online", ["distill.online=true"]),
    "drawn": ("KD from the cache, the defaults: the tail drawn", []),
    "clustered": ("KD from the cache, clustered", ["distill.estimator=clustered"]),
    "cells64": ("KD from a cache of 64 cells at one temperature",
                ["distill.estimator=clustered", "distill.cache.temperatures=[1]", "distill.cache.tail_clusters=64"]),
    "fine": ("KD from a cache of the top 64 and 64 cells",
             ["distill.estimator=clustered", "distill.cache.temperatures=[1]", "distill.cache.min_probability=0",
              "distill.cache.tail_clusters=64"]),
    "ghost": ("KD from the cache, ghost", ["distill.estimator=ghost"]),
    "top128": ("KD from a cache of the top 128, the tail at zero",
               ["distill.estimator=zero", "distill.cache.top_k=128", "distill.cache.min_probability=0",
                "distill.cache.tail_clusters=1"]),
}


def run(a, arm, seed):
    command = [a.retort, "run", a.recipe, *ARMS[arm][1], f"seed={seed}", f"name=proof-{arm}-{seed}", "export.files=[]", "evaluate=[]",
               *a.overrides]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=open(a.out + ".log", "a"))
    folder = pathlib.Path(a.output_dir) / f"proof-{arm}-{seed}" / "latest"
    report = json.loads((folder / "report.json").read_text())
    teacher = report["distill"]["teachers"][0]
    return {"arm": arm, "seed": seed, "overrides": a.overrides, "tokens": report["train"]["trained_tokens"],
            "tokens_per_second": report["train"]["tokens_per_second"], "before": report["distill"]["before"][0],
            "after": report["distill"]["after"][0], "cache": teacher.get("cache")}


def table(rows):
    def cell(values, digits):
        mean = f"{statistics.mean(values):.{digits}f}"
        return f"{mean} ± {statistics.stdev(values) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else mean
    alone = {r["seed"]: r["after"]["divergence"] for r in rows if r["arm"] == "ce"}
    lines = ["| student | seeds | KL from the teacher | the same less that of cross entropy alone, seed by seed | "
             "same most likely token | perplexity |", "|---|---|---|---|---|---|"]
    first = rows[0]
    lines.append(f"| before training | | {first['before']['divergence']:.3f} | | {100 * first['before']['agreement']:.1f} % | "
                 f"{math.exp(first['before']['cross_entropy']):.1f} |")
    for arm, (label, _) in ARMS.items():
        of = [r for r in rows if r["arm"] == arm]
        if of:
            paired = [r["after"]["divergence"] - alone[r["seed"]] for r in of if r["seed"] in alone and arm != "ce"]
            lines.append(f"| {label} | {len(of)} | {cell([r['after']['divergence'] for r in of], 3)} | "
                         f"{cell(paired, 4) if paired else ''} | "
                         f"{cell([100 * r['after']['agreement'] for r in of], 1)} % | "
                         f"{cell([math.exp(r['after']['cross_entropy']) for r in of], 2)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("retort", nargs="?")
    p.add_argument("recipe", nargs="?")
    p.add_argument("overrides", nargs="*")
    p.add_argument("--out")
    p.add_argument("--output-dir", default="runs")
    p.add_argument("--arms", default=",".join(ARMS))
    p.add_argument("--seeds", default="1,2,3")
    p.add_argument("--table")
    a = p.parse_intermixed_args()
    if a.table:
        print(table([json.loads(line) for line in open(a.table)]))
        sys.exit()
    out = pathlib.Path(a.out)
    done = [json.loads(line) for line in open(out)] if out.exists() else []
    for seed in map(int, a.seeds.split(",")):
        for arm in a.arms.split(","):
            if any(r["arm"] == arm and r["seed"] == seed for r in done):
                continue
            done.append(run(a, arm, seed))
            with open(out, "a") as f:
                f.write(json.dumps(done[-1]) + "\n")
            print(table(done), flush=True)
