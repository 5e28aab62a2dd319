#!/usr/bin/env bash
# Makes the five MNIST tables of docs/results/hard.md again: docs/results/hard.sh DATA OUT, from the repository's root.
set -euo pipefail

data=${1:?the folder of the data} out=${2:?the folder of the results}

compare() {  # the task; the range that its teacher met; the settings that tell the ceiling from weight 1, or nothing
    local known="random_affine($2,max_scale=1,padding=zeros)"
    local known_w8="random_affine($2,max_scale=1,padding=zeros,augmented_weight=8)"
    python benchmarks/methods.py --task "$1" --first-seed 300 --seeds 5 --methods none kd hard "$known" "$known_w8" \
        --against "$known" "$known_w8" --gap-to "random_affine($2,max_scale=1,padding=zeros$3)" \
        --data "$data" --out "$out"
}

compare mnist_shift 'max_shift=0.2143,max_rotation_deg=0' ',augmented_weight=8'
compare mnist_rotate 'max_shift=0,max_rotation_deg=45' ',augmented_weight=8'
compare mnist_shift_4px 'max_shift=0.1429,max_rotation_deg=0' ',augmented_weight=8'
compare mnist_shift_cnn 'max_shift=0.2143,max_rotation_deg=0' ''
compare mnist_rotate_cnn 'max_shift=0,max_rotation_deg=45' ',augmented_weight=8'
