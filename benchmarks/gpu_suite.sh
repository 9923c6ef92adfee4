#!/usr/bin/env bash
# Every GPU check and benchmark, in under ten minutes on one GPU.
#
#   benchmarks/gpu_suite.sh                       on cuda, results below runs/gpu
#   STEPS="model search" benchmarks/gpu_suite.sh  some steps only: tests equivalence ranks model search throughput compress
#   FAKE=1 SHAPE=tiny benchmarks/gpu_suite.sh     the same path on a CPU behind a fake GPU, to try the script itself
#
# DATA names a folder with the tasks' folders (sst2, ...); without it nothing is compressed beside other methods.
# Needs what `pip install '.[test]'` installs; PYTHON names the interpreter. Where uploads are small,
# `python -m benchmarks.half_minilm` writes MiniLM in half of its size; put that folder on PYTHONPATH.
set -euo pipefail
cd "$(dirname "$0")/.."

DEVICE=${DEVICE:-cuda}
SHAPE=${SHAPE:-bert-base}
OUT=${OUT:-runs/gpu}
STEPS=${STEPS:-tests equivalence ranks model search throughput compress}
DTYPE=${DTYPE:-bfloat16}
PYTHON=${PYTHON:-python}
RUN=("$PYTHON")
[ -z "${FAKE:-}" ] || RUN+=(-m benchmarks.fake_cuda)
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$OUT"

wanted() { # NAME TITLE: whether the step is asked for; says that it begins
  [[ " $STEPS " == *" $1 "* ]] && printf '\n== %s (after %d seconds) ==\n' "$2" "$SECONDS"
}

"${RUN[@]}" -c "from rlnas.latency import describe_device; print(describe_device('$DEVICE'))" | tee "$OUT/device.txt"
rm -rf "$OUT/checkpoint"
"$PYTHON" -m benchmarks.random_checkpoint --shape "$SHAPE" --out "$OUT/checkpoint"

if wanted tests "tests that need a GPU"; then
  # Exit code 5 means that no test was selected.
  "${RUN[@]}" -m pytest tests -m gpu -q --timeout 120 || [ $? -eq 5 ]
fi

if wanted equivalence "masked = sliced = extracted = reloaded, on the device"; then
  "${RUN[@]}" -m benchmarks.equivalence --quick --device "$DEVICE" --out "$OUT/equivalence.jsonl"
fi

# The fake GPU is of one process; torchrun starts others.
if [ -z "${FAKE:-}" ] && wanted ranks "training under torchrun, by NCCL, beside one process"; then
  "${RUN[@]}" -m benchmarks.distributed --device "$DEVICE" --nproc "${NPROC:-1}" --models tiny minilm --starts 2 \
    --out "$OUT/distributed.jsonl"
fi

if wanted model "how well latency tables predict: eager, CUDA graphs, compiled"; then
  "${RUN[@]}" -m benchmarks.latency_model --device "$DEVICE" --dtype "$DTYPE" --models minilm "$SHAPE" \
    --batch-sizes 1 32 --seq-lens "${SEQ_LEN:-128}" --modes eager cuda_graph --held-out "${HELD_OUT:-60}" \
    --rounds "${ROUNDS:-30}" --seconds 10 --out "$OUT/latency_model.jsonl"
  # Building takes seconds for each model, so fewer of them.
  "${RUN[@]}" -m benchmarks.latency_model --device "$DEVICE" --dtype "$DTYPE" --models "${COMPILED:-minilm}" \
    --batch-sizes 1 --seq-lens "${SEQ_LEN:-128}" --modes compiled --held-out 6 \
    --rounds "${ROUNDS:-30}" --seconds 10 --out "$OUT/latency_model.jsonl"
fi

if wanted search "whole searches whose reward is a latency measured on the device"; then
  for mode in eager cuda_graph; do
    rm -rf "$OUT/search-minilm-$mode" "$OUT/search-$SHAPE-$mode"
    "${RUN[@]}" -m rlnas search --task pydocs --max-train-items "${TRAIN_ITEMS:-2000}" --search-items "${ITEMS:-872}" \
      --device "$DEVICE" --dtype "$DTYPE" --mode "$mode" --batch-size 1 --seq-len 64 --budget "${BUDGET:-150}" \
      --out "$OUT/search-minilm-$mode"
    # Random weights: the latency is that of the shape, the accuracy is chance.
    "${RUN[@]}" -m rlnas search --model "$OUT/checkpoint" --task pydocs --max-train-items "${TRAIN_ITEMS:-500}" \
      --search-items "${ITEMS:-400}" --epochs 1 --device "$DEVICE" --dtype "$DTYPE" --mode "$mode" \
      --batch-size 1 --seq-len 64 --budget "${BUDGET:-64}" --controller random --out "$OUT/search-$SHAPE-$mode"
    for model in minilm "$SHAPE"; do
      cp "$OUT/search-$model-$mode/summary.json" "$OUT/summary-$model-$mode.json"
    done
  done
fi

if wanted throughput "512 subnets of $SHAPE shapes on 872 items, in bfloat16"; then
  "${RUN[@]}" -m benchmarks.throughput --model "$OUT/checkpoint" --device "$DEVICE" --configs "${CONFIGS:-512}" \
    --items "${ITEMS:-872}" --out "$OUT/throughput.jsonl"
fi

if [ -n "${DATA:-}" ] && wanted compress "compressed models at equal measured latency, on the tasks below DATA"; then
  "${RUN[@]}" -m benchmarks.compression --data "$DATA" --device "$DEVICE" --threads 0 --tasks ${TASKS:-sst2 sms_spam} \
    --seeds 1 --targets 0.5 --train-items "${TRAIN_ITEMS:-4000}" --trials "${BUDGET:-150}" \
    --cache "$OUT/compression" --out "$OUT/compression.jsonl"
fi

printf '\n== done in %d seconds ==\n' "$SECONDS"
