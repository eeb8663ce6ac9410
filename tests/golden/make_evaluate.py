"""What transformers says of FOLDOC-like rows: the evaluators' numbers must agree.

    make_evaluate.py MODEL_FOLDER FOLDOC_DICT [OUT]     # SmolLM2-135M-Instruct in f32; /usr/share/dictd/foldoc.dict.dz

OUT (default evaluate.json beside this file): for each row the prompt's and every choice's token ids, the sum of
log-probabilities of each choice (end-of-turn included), and the tokens that greedy generation gives; over all rows the
accuracy of the most likely choice, and the perplexity of the expected answers.
"""
import gzip
import json
import math
import pathlib
import re
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, foldoc = sys.argv[1:3]
out = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else pathlib.Path(__file__).with_name("evaluate.json")
CHOICES = ["networking", "programming", "language", "hardware", "operating system", "theory"]

text = gzip.open(foldoc, "rt", errors="replace").read()
rows = []
for entry in re.split(r"\n(?=\S)", text):
    term, _, body = entry.strip().partition("\n")
    found = re.search(r"<([a-z ]+)>", body)
    if not found or found.group(1) not in CHOICES or not 80 < len(body) < 400:
        continue
    body = re.sub(r"\s+", " ", body.replace(found.group(0), " ")).strip()
    if sum(r[1] == found.group(1) for r in rows) < 4:  # a few of each
        rows.append((f"Which category does this entry belong to?\n{term}: {body}", found.group(1)))
rows = rows[:20]

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
IM_END = tokenizer.convert_tokens_to_ids("<|im_end|>")


def encode(text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


result, nats, tokens, right, matches = [], 0.0, 0, 0, 0
with torch.no_grad():
    for question, expected in rows:
        prompt = encode("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
                        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
        answers = [encode(choice) + [IM_END] for choice in CHOICES]
        totals = []
        for answer in answers:
            logits = model(torch.tensor([prompt + answer])).logits[0].double()
            log_p = logits.log_softmax(-1)[len(prompt) - 1:-1]
            totals.append(log_p.gather(1, torch.tensor(answer)[:, None]).sum().item())
        greedy = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                                max_new_tokens=8, do_sample=False, pad_token_id=IM_END, eos_token_id=IM_END)
        answer = CHOICES.index(expected)
        nats -= totals[answer]
        tokens += len(answers[answer])
        right += totals.index(max(totals)) == answer
        result.append(dict(question=question, expected=expected, prompt=prompt, answers=answers, log_probabilities=totals,
                           greedy=greedy[0, len(prompt):].tolist()))
json.dump(dict(choices=CHOICES, rows=result, accuracy=right / len(rows), perplexity=math.exp(nats / tokens)),
          out.open("w"), separators=(",", ":"))
