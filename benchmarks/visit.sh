#!/bin/sh
# One visit to a device; see benchmarks/visit.py, whose flags it takes:
#
#     benchmarks/visit.sh --out=visit [--seconds=450] [--sizes=small,base]
#
# Needs a Python that has JAX for the device: $PYTHON, or else python, or python3. Nothing is fetched.
# Where that Python lacks other packages, give their wheels as a folder, WHEELS=folder; they are
# installed beside it, from there alone.
set -eu
cd "$(dirname "$0")/.."
for python in ${PYTHON:-python python3}; do
    if "$python" -c "import jax" >/dev/null 2>&1; then break; fi
    python=
done
if [ -z "$python" ]; then
    echo "visit.sh: expected a Python that imports jax; found none. Set PYTHON to one." >&2
    exit 2
fi
if [ -n "${WHEELS:-}" ]; then
    site=$(mktemp -d)
    "$python" -m pip install --quiet --no-index --no-deps --target "$site" "$WHEELS"/*.whl
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
exec "$python" -m benchmarks.visit "$@"
