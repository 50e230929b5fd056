#!/usr/bin/env bash
# The same command on every host of a TPU slice, here of a v5e of 4x4 chips:
#
#   TPU=my-v5litepod-16 ZONE=us-west4-a scripts/tpu_pod.sh --config=configs/flan_t5.py:xxl \
#       --workdir=/shared/runs/xxl
#
# The repository and its .venv stand in ~/hir_jax on each host, or in DIRECTORY; the workdir is on a
# file system that all of them mount. See docs/running.md.
set -euo pipefail
: "${TPU:?is the name of the TPU}" "${ZONE:?is its zone}"

arguments=${*:+$(printf ' %q' "$@")}
gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
  --command="cd ${DIRECTORY:-hir_jax} && .venv/bin/python main.py --distributed$arguments"
