#!/usr/bin/env bash
# Includes only go downwards, no umbrella header of LibTorch, and no type defined twice: prints each offending line, exits 1
# if there is one.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
declare -A allowed=(
  [core]="core"
  [quant]="core quant"
  [models]="core quant models"
  [adapters]="core quant models adapters"
  [data]="core quant models data"
  [distill]="core quant models adapters data distill"
  [trainer]="core quant models adapters data distill trainer"
  [export]="core quant models adapters data export"
  [monitor]="core quant models data monitor"
  [registry]="core registry"
  [report]="core report"
  [recipes]="core quant models adapters data distill trainer export monitor registry report recipes"
  [cli]="core quant models adapters data distill trainer export monitor registry report recipes cli"
)
bad=0
for folder in "${!allowed[@]}"; do
  while IFS= read -r line; do
    target=$(sed -E 's/.*#include "([^"\/]+)\/.*/\1/' <<<"$line")
    [[ -n ${allowed[$target]+known} ]] || continue
    [[ " ${allowed[$folder]} " == *" $target "* ]] || { echo "$line: $folder may include only: ${allowed[$folder]}"; bad=1; }
  done < <(grep -rnE '#include "[^"]+/' "$folder" --include='*.h' --include='*.cpp' --include='*.cu')
done
if grep -rnE '#include [<"]torch/(torch|all|extension)\.h' core quant models adapters data distill trainer export monitor registry report \
     recipes cli tests bench --include='*.h' --include='*.cpp'; then
  echo "torch/torch.h costs 18 s a file: include per-op headers or use the precompiled header"; bad=1
fi
# Two types of one name in one namespace: the linker takes either one's functions for both, and says nothing.
twice=$(grep -hoE '^(struct|class) [A-Z][A-Za-z]+ (final )?(: .*)?\{' "${!allowed[@]}" -r --include='*.h' | awk '{print $2}' | sort | uniq -d)
for name in $twice; do
  grep -rnE "^(struct|class) $name .*\{" "${!allowed[@]}" --include='*.h'
  echo "$name is defined in more than one header: rename one"; bad=1
done
exit $bad
