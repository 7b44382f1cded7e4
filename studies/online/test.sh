#!/bin/sh
# Asks the last policy of every run of rounds for the same, on test prompts.
#
#     sh test.sh FOLDER SEED
set -e
folder=$1 # replay=SHARE; its runs stand in replay=SHARE,ARM
seed=$2
mkdir -p "$folder"
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
last() { # NAME RUN
    both "$1" "$(ls -d "$folder,$2"/round-*/policy | tail -n 1)"
}
both start policy
last online distinct,entropy=0.85
last unguarded distinct
last random-drop random
last expert distinct,top=0.125
last offline offline
