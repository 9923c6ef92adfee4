#!/usr/bin/env bash
# Every GPU check and benchmark, in under ten minutes on one GPU.
#
#   benchmarks/gpu_suite.sh                  on cuda, results below runs/gpu
#   DEVICE=cpu SHAPE=tiny benchmarks/gpu_suite.sh    the same path on a CPU, to test the script itself
#
# Needs what `pip install '.[test]'` installs; PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

DEVICE=${DEVICE:-cuda}
SHAPE=${SHAPE:-bert-base}
OUT=${OUT:-runs/gpu}
PYTHON=${PYTHON:-python}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$OUT"

step() { printf '\n== %s ==\n' "$1"; }

step "the device"
"$PYTHON" -c "from rlnas.latency import describe_device; print(describe_device('$DEVICE'))" | tee "$OUT/device.txt"

step "tests that need a GPU"
# Exit code 5 means that no test was selected, as with -m gpu where there is no GPU to ask for.
"$PYTHON" -m pytest tests -m gpu -q --timeout 120 || [ $? -eq 5 ]

step "masked = sliced = extracted = reloaded, on the device"
"$PYTHON" -m benchmarks.equivalence --quick --device "$DEVICE" --out "$OUT/equivalence.jsonl"

step "a latency table of $SHAPE shapes, launch-bound and compute-bound"
rm -rf "$OUT/checkpoint"
"$PYTHON" -m benchmarks.random_checkpoint --shape "$SHAPE" --out "$OUT/checkpoint"
for workload in "1 32" "1 128" "32 128"; do
  read -r batch length <<<"$workload"
  "$PYTHON" -m rlnas calibrate --model "$OUT/checkpoint" --device "$DEVICE" \
    --batch-size "$batch" --seq-len "$length" --out "$OUT/latency-$batch-$length.json"
done

step "512 subnets of $SHAPE shapes on 872 items, in bfloat16"
"$PYTHON" -m benchmarks.throughput --model "$OUT/checkpoint" --device "$DEVICE" --configs "${CONFIGS:-512}" \
  --items "${ITEMS:-872}" --out "$OUT/throughput.jsonl"

step "a whole search whose reward is a latency measured on the device"
rm -rf "$OUT/search"
"$PYTHON" -m rlnas search --task pydocs --max-train-items "${TRAIN_ITEMS:-4000}" --device "$DEVICE" \
  --batch-size 32 --seq-len 64 --budget "${BUDGET:-200}" --out "$OUT/search"
cp "$OUT/search/summary.json" "$OUT/summary.json"

step "done in $SECONDS seconds"
