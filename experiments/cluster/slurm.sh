#!/usr/bin/env bash
# A run on SLURM, one process for each GPU. Not run anywhere yet: see README.md.
#SBATCH --job-name=mtbkd
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
# Two minutes for a last checkpoint, and again in the queue after a preemption.
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

: "${DATA:?file with inputs and labels}" "${TEACHERS:?name=FILE pairs, separated by spaces}" "${RUN:?directory on a shared file system}"

# shellcheck disable=SC2086  # several teachers are several words
srun --kill-on-bad-exit=1 mtbkd fit \
  --data "$DATA" --teachers $TEACHERS --out "$RUN" --resume \
  --sampling.num-chains 16 \
  --processes.cluster
