#!/usr/bin/env bash
# Makes the tables of docs/results/teachers.md again: docs/results/teachers.sh FOLDER mnist.npz, from the repository's
# root.
set -euo pipefail

folder=${1:?the folder of the results} images=${2:?mnist.npz}

python benchmarks/teachers.py --out "$folder" --images "$images" --pool 4 --space nb201 --train 400 \
    --teacher-train 2000 --validation 300 --measured 4000 --epochs 12 --teacher-epochs 12 --seeds 4
python benchmarks/teachers.py --out "$folder" --images "$images" --pool 4 --space resnet --train 1000 \
    --teacher-train 2000 --validation 300 --measured 4000 --epochs 12 --teacher-epochs 12 --seeds 3
