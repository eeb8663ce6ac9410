"""What lm-evaluation-harness says of the tasks in tasks/: log-likelihoods, answers and scores must agree.

    make_tasks.py MODEL_FOLDER [OUT]    # SmolLM2-135M-Instruct in f32; lm-eval 0.4.13

OUT (default tasks.json beside this file): for each task its metrics with standard errors; for each row the prompt, the
log-likelihood of each choice or the generated and filtered answers, and the row's scores.
"""
import json
import os
import pathlib
import sys

os.environ.update(HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
import lm_eval  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

here = pathlib.Path(__file__).resolve().parent
out = pathlib.Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else here / "tasks.json"
model = HFLM(pretrained=sys.argv[1], dtype="float32", batch_size=1, device="cpu")
os.chdir(here / "tasks")  # the tasks name their data from here
manager = TaskManager(include_path=".", include_defaults=False)
found = lm_eval.simple_evaluate(model, tasks=["computing_choices", "computing_answers"], task_manager=manager,
                                bootstrap_iters=2, log_samples=True)
result = {}
for task, samples in found["samples"].items():
    metrics = {k: v for k, v in found["results"][task].items() if isinstance(v, float)}
    rows = {}
    for sample in sorted(samples, key=lambda s: s["doc_id"]):
        row = rows.setdefault(sample["doc_id"], dict(prompt=sample["arguments"][0][0], filtered={}, scores={}))
        if task == "computing_choices":
            row["log_likelihoods"] = [float(r[0][0]) for r in sample["resps"]]
        else:
            row["answer"] = sample["resps"][0][0]
            row["filtered"][sample["filter"]] = sample["filtered_resps"][0]
        for metric in sample["metrics"]:
            row["scores"][f"{metric},{sample['filter']}"] = float(sample[metric])
    result[task] = dict(metrics=metrics, rows=list(rows.values()))
json.dump(result, out.open("w"), indent=1, ensure_ascii=False)
