#!/usr/bin/env bash
# Trains the reward model and the neural policies, and the same reward model in PyTorch where that is installed.
#   bench/gpu.sh [ROWS]     default 400000; one line of JSON from each
# The binary: $WEIR_BENCH, else a release build, with --features cuda where nvidia-smi finds a GPU. It runs without cargo, so it can be built
# on one machine and run on another.
set -euo pipefail
cd "$(dirname "$0")/.."
rows=${1:-400000}
if [ -z "${WEIR_BENCH:-}" ]; then
    features=()
    if nvidia-smi >/dev/null 2>&1; then features=(--features weir-learners/cuda); fi
    cargo build --release --quiet --workspace --bin weir-bench "${features[@]}"
    WEIR_BENCH=${CARGO_TARGET_DIR:-target}/release/weir-bench
fi
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo "no GPU: this is the CPU backend" >&2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
ours=$("$WEIR_BENCH" train "$rows" "$folder")
echo "$ours"
python=${WEIR_PYTHON:-python3}
if "$python" -c "import torch, numpy" 2>/dev/null; then
    loss=$("$python" -c "import json, sys; print(json.loads(sys.argv[1])['reward_model_log_loss'])" "$ours")
    "$python" bench/gpu/pytorch.py "$folder" "$loss"
else
    echo "skipped: PyTorch is not installed for $python" >&2
fi
