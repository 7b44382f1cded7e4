#!/bin/sh
# Asks the last policy of every arm of some rounds for the same, on test prompts.
#
#     sh test.sh FOLDER SEED
set -e
folder=$1
seed=$2
ask() { # NAME POLICY KIND REQUEST...
    name=$1 policy=$2 kind=$3
    shift 3
    irlhf sample "$policy" start.jsonl --split test --limit 120 -n 4 --max-tokens 128 --seed "$seed" "$@" -q \
        -o "$folder/asked-$name-$kind.jsonl"
    irlhf score "$folder/asked-$name-$kind.jsonl" -r rewards.yaml -q -o "$folder/scored-$name-$kind.jsonl"
    irlhf score "$folder/scored-$name-$kind.jsonl" -r rewards.yaml --gold -q -o "$folder/test-$name-$kind.jsonl"
}
both() { # NAME POLICY
    ask "$1" "$2" mix --weights kindness+detail --mix-from best
    ask "$1" "$2" data -t kindness=data -t detail=data
}
both start policy
both online "$(ls -d "$folder"/round-*/policy | tail -n 1)"
for arm in unguarded random-drop expert offline; do
    if [ -d "$folder/$arm" ]; then
        both "$arm" "$(ls -d "$folder/$arm"/round-*/policy | tail -n 1)"
    fi
done
