#!/usr/bin/env bash
# The deployment files are what their schedulers read: systemd's by its own checker, the shell script by bash, cron's line by
# its fields, YAML by a parser where python3-yaml is there.
set -euo pipefail
cd "$(dirname "$0")/../configs/deploy"
bash -n slurm.sh
# cron's line: five fields of time, a user, a command that changes into the folder first.
fields='([0-9*,/-]+ ){5}'
lines=$(grep -Evc '^(#|[A-Z]+=|$)' cron)
[[ $lines == 1 ]] || { echo "cron: $lines lines, one is expected"; exit 1; }
grep -Eq "^${fields}retort cd /[^ ]+ && retort retrain /[^ ]+" cron || { echo "cron: the line is not as cron reads it"; exit 1; }
for line in 'SuccessExitStatus=10 11 12 13' 'RestartPreventExitStatus=20 21 22 64 65' 'CacheDirectory=retort' \
  'Environment=RETORT_CACHE=/var/cache/retort'; do
  grep -qx "$line" retort-retrain.service || { echo "retort-retrain.service: $line is missing"; exit 1; }
done
if python3 -c 'import yaml' 2> /dev/null; then
  python3 - << 'EOF'
import yaml

claim, job = yaml.safe_load_all(open("kubernetes.yaml"))
assert (claim["kind"], job["kind"], job["apiVersion"]) == ("PersistentVolumeClaim", "CronJob", "batch/v1")
assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]  # two nodes would not see each other's locks
spec = job["spec"]
assert spec["concurrencyPolicy"] == "Forbid" and len(spec["schedule"].split()) == 5
verdicts = spec["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][0]
assert verdicts["action"] == "FailJob" and verdicts["onExitCodes"]["operator"] == "In"
assert verdicts["onExitCodes"]["values"] == [10, 11, 12, 13, 20, 21, 22, 64, 65]
pod = spec["jobTemplate"]["spec"]["template"]["spec"]
(container,) = pod["containers"]
assert container["name"] == verdicts["onExitCodes"]["containerName"] and pod["restartPolicy"] == "Never"
volumes = {volume["name"]: volume for volume in pod["volumes"]}
assert volumes["work"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
assert set(mounts) <= set(volumes) and container["workingDir"] == mounts["work"]
assert {"name": "RETORT_CACHE", "value": mounts["work"] + "/cache"} in container["env"]
EOF
fi
command -v systemd-analyze > /dev/null || exit 77
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cp retort-retrain.service retort-retrain.timer "$folder"
sed -i 's#^ExecStart=[^ ]*#ExecStart=/bin/true#' "$folder/retort-retrain.service"  # the checker wants the program to be there
output=$(systemd-analyze verify "$folder"/retort-retrain.{service,timer} 2>&1) || { echo "$output"; exit 1; }
[[ -z $output ]] || { echo "$output"; exit 1; }
