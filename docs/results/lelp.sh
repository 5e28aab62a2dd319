#!/usr/bin/env bash
# Makes the three tables of docs/results/lelp.md again: docs/results/lelp.sh DATA OUT, from the repository's root.
set -euo pipefail

data=${1:?the folder of the data} out=${2:?the folder of the results}
pca='subclass_temperature=0.5,temperature=8,subclass_weight=16'
kmeans='directions=kmeans,subclass_temperature=0.3,temperature=8'

# beside_kd
python benchmarks/methods.py --task mnist_oddeven --first-seed 200 --seeds 10 \
    --methods none kd 'kd(temperature=8)' 'kd(temperature=16)' \
    'kd(temperature=8,distill_weight=1)' 'kd(temperature=16,distill_weight=1)' \
    lelp "lelp($pca)" "lelp($kmeans)" kd+embedding_regression kd+rkd \
    --against 'kd(temperature=16)' 'kd(temperature=16,distill_weight=1)' "lelp($kmeans)" \
    --data "$data" --out "$out"

# controls
python benchmarks/methods.py --task mnist_oddeven --first-seed 200 --seeds 10 \
    --methods 'kd(temperature=1)' 'lelp(temperature=1)' lelp 'lelp(control=shuffled)' \
    'lelp(control=random_partition)' "lelp($pca)" "lelp($pca,control=shuffled)" \
    "lelp($kmeans)" "lelp($kmeans,control=shuffled)" \
    --against 'kd(temperature=1)' 'lelp(control=shuffled)' 'lelp(control=random_partition)' \
    "lelp($pca,control=shuffled)" "lelp($kmeans,control=shuffled)" \
    --data "$data" --out "$out"

# sst2
python benchmarks/methods.py --task sst2 --first-seed 200 --seeds 5 \
    --methods none kd lelp "lelp($pca)" 'lelp(control=shuffled)' --against 'lelp(control=shuffled)' \
    --data "$data" --out "$out"
