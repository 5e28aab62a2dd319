#!/usr/bin/env bash
# Makes docs/results/hard_epochs.csv again, what an epoch of each method costs: docs/results/hard_epochs.sh, from the
# repository's root.
set -euo pipefail

python benchmarks/epochs.py --images 2048 --turns 7 --methods kd lelp embedding_regression rkd diswot_plus kd_aif \
    'kd_aif(warmup_epochs=1)' 'hard(warmup_steps=0)' random_affine
python benchmarks/epochs.py --images 1024 --turns 5 --blocks 3 --widths 16 32 64 \
    --methods kd rkd diswot_plus lelp embedding_regression kd_aif
