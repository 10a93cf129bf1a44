#!/usr/bin/env bash
# All that waits for a GPU, within 9 minutes: the gpu tests, memcheck of the Triton kernel, and the table with the headline.
#
#     tests/benchmarks/gpu_day.sh OUT [DEVICE] [--tiny]
#
# OUT gets gpu_tests.txt, memcheck.txt, gpu_day.json and gpu_day.md. DEVICE cpu with --tiny tries the script without a GPU.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=$1 device=${2:-cuda} tiny=${3:-}
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=1
failed=0

TRITON_INTERPRET=0 timeout 120 python -m pytest -m gpu -s -p no:cacheprovider tests/engine/test_gpu.py > "$out/gpu_tests.txt" 2>&1 || failed=1
tail -n 1 "$out/gpu_tests.txt"

if command -v compute-sanitizer > /dev/null && [ "$device" != cpu ]; then
  timeout 60 compute-sanitizer --tool memcheck --error-exitcode 9 \
    python -m tests.engine.run_triton "$device" > "$out/memcheck.txt" 2>&1 || failed=1
  tail -n 1 "$out/memcheck.txt"
else
  echo "memcheck: compute-sanitizer is not here" | tee "$out/memcheck.txt"
fi

timeout 360 python tests/benchmarks/gpu_day.py "$out" --device "$device" --minutes 5.5 $tiny || failed=1
cat "$out/gpu_day.md"
exit "$failed"
