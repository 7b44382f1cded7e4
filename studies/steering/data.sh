#!/bin/sh
# data.sh HH BASE ENCODER: make, in this folder, the data and the reward models of the steering studies.
#   HH       a folder with helpful-base.test.jsonl.gz and harmless-base.test.jsonl.gz
#   BASE     SmolLM2-135M-Instruct; ENCODER  all-MiniLM-L6-v2
# A quarter of the conversations is the test split and a tenth the validation split, by a hash of the first turn. Of the
# rest, one half trains the proxy reward models, and the other half the gold ones.
set -e
here=$(dirname "$0")
ln -sfn "$2" base
ln -sfn "$3" encoder
for kind in helpful harmless; do
    irlhf prepare "$1/$kind-base.test.jsonl.gz" --test 0.25 --validation 0.1 -o $kind.jsonl
    irlhf reward-model $kind.jsonl --half proxy --model ./encoder --context 128 --epochs 2 \
        --learning-rate 2e-4 -o proxy-$kind
done
python "$here/rows.py" base helpful.jsonl harmless.jsonl
irlhf score rows.jsonl -r "$here/rewards.yaml" -o scored.jsonl
irlhf score rows-turns.jsonl -r "$here/rewards.yaml" -o scored-turns.jsonl
cat scored.jsonl scored-turns.jsonl >scored-all.jsonl
