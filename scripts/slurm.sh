#!/usr/bin/env bash
# Several nodes of GPUs under Slurm, one process a GPU:
#
#   sbatch --nodes=2 scripts/slurm.sh --config=configs/flan_t5.py:xl --workdir=/shared/runs/xl
#
# from the repository's root, which, like its .venv and the workdir, all nodes must see. Change the
# GPUs a node in the next two lines where yours have another number.
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --job-name=hir_jax
#SBATCH --time=24:00:00
# Five minutes before the time is up, time enough to save.
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
source .venv/bin/activate

code=0
srun python main.py --distributed "$@" || code=$?
# 143: stopped by SIGTERM, all saved. 75: a node was lost. Both go on where they were.
if [[ $code == 143 || $code == 75 ]] && ((${SLURM_RESTART_COUNT:-0} < 20)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
