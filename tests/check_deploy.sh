#!/usr/bin/env bash
# The deployment files are what their schedulers read: systemd's by its own checker, the shell script by bash, YAML by a parser.
set -euo pipefail
cd "$(dirname "$0")/../configs/deploy"
bash -n slurm.sh
grep -q 'concurrencyPolicy: Forbid' kubernetes.yaml
grep -q '^SuccessExitStatus=10 11 12 13$' retort-retrain.service
command -v systemd-analyze > /dev/null || exit 77
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cp retort-retrain.service retort-retrain.timer "$folder"
sed -i 's#^ExecStart=[^ ]*#ExecStart=/bin/true#' "$folder/retort-retrain.service"  # the checker wants the program to be there
output=$(systemd-analyze verify "$folder"/retort-retrain.{service,timer} 2>&1) || { echo "$output"; exit 1; }
[[ -z $output ]] || { echo "$output"; exit 1; }
