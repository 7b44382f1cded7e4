#!/bin/sh
# Trains as often, and on as many tokens, as some rounds, on offline rows alone.
#
#     sh offline.sh ROUNDS SEED OUTPUT [SCORED-FRESH]
set -e
rounds=$1
seed=$2
output=$3
here=$(dirname "$0")
policy=policy
for number in 1 2 3; do
    folder=$output/round-$number
    mkdir -p "$folder"
    options=$(python "$here/offline.py" "$number" "$rounds" "$folder/train.jsonl" ${4:+"$4"})
    # shellcheck disable=SC2086
    irlhf finetune "$folder/train.jsonl" -r rewards.yaml --model "$policy" --keep-scales-of "$policy" --batch 8 \
        $options --seed $((seed + number)) -q -o "$folder/policy"
    policy=$folder/policy
done
