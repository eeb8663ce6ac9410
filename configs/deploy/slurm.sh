#!/usr/bin/env bash
# A slot of a retraining on Slurm. Submit it every night from scrontab, or once: sbatch configs/deploy/slurm.sh retrain.yaml
# output_dir and retrain.registry must lie on a local disk of one node (--nodelist): the registry refuses network file systems.
#SBATCH --job-name=retort-retrain
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=08:00:00
#SBATCH --dependency=singleton
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@600
set -u
recipe=${1:?the recipe}
shift
# Slurm tells this shell ten minutes before the time is over; Retort then stops after a checkpoint, with 75.
retort retrain "$recipe" --quiet "$@" &
child=$!
trap 'kill -TERM "$child"' TERM
wait "$child"
code=$?
if ((code > 128)); then  # the trap ended the wait, not the program
  wait "$child"
  code=$?
fi
case $code in
  0 | 10 | 11 | 12 | 13) exit 0 ;;
  75) scontrol requeue "${SLURM_JOB_ID:?}" ;;
esac
exit "$code"
