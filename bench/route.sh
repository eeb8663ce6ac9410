#!/usr/bin/env bash
# usage: bench/route.sh TRAINED [RETORT] [FOLDER]. The figures of docs/router.md: TRAINED, the Q4_K_M file of
# `./retort run configs/quickstart.yaml`, is the large model, the same in Q2_K the small one. Rows are of the
# quickstart's validation split, which no training sees: two of three calibrate, the third evaluates.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
trained=$1 retort=${2:-build/release/bin/retort} folder=${3:-$(mktemp -d)}
"$retort" quantize "$trained" --type Q2_K --out "$folder/small.gguf" >/dev/null
"$retort" route measure configs/quickstart.yaml data.validation.0.limit=100000 --small "$folder/small.gguf" \
  --large "$trained" --quiet --out "$folder/rows.jsonl"
awk 'NR % 3' "$folder/rows.jsonl" > "$folder/calibrate.jsonl"
awk 'NR % 3 == 0' "$folder/rows.jsonl" > "$folder/evaluate.jsonl"
for epsilon in 0.05 0.1; do
  "$retort" route calibrate "$folder/calibrate.jsonl" --epsilon $epsilon --delta 0.1 --out "$folder/router.json"
  "$retort" route evaluate "$folder/router.json" "$folder/evaluate.jsonl" --small "$folder/small.gguf" \
    --out "$folder/epsilon-$epsilon"
done
