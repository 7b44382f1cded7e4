#!/bin/sh
# reach.sh SEED "REWARDS TEMPLATE N:SWEEP": train, measure the reach on validation topics, ask with and without it.
set -e
seed=$1
set -- $2
rewards=rewards-$1.yaml template=$2.yaml n=${3%%:*} sweep=${3#*:}
irlhf() { python -m irlhf "$@"; }
ask() { irlhf sample policy examples.jsonl --max-tokens 100 --seed "$seed" -t "kindness=$sweep" -n "$n" "$@"; }
irlhf score examples.jsonl -r "$rewards" -o scored.jsonl
irlhf finetune scored.jsonl -r "$rewards" --model tiny --template "$template" --epochs 6 --batch 8 --context 256 \
    --seed "$seed" -o policy
ask --split validation --limit 100 -o validation.jsonl --no-clamp
irlhf score validation.jsonl -r "$rewards" -o scored-validation.jsonl
irlhf eval scored-validation.jsonl --calibrate policy -o eval-validation.json
for how in raw held; do
    ask --limit 120 -o "samples-$how.jsonl" $([ $how = raw ] && echo --no-clamp)
    irlhf score "samples-$how.jsonl" -r "$rewards" -o "scored-$how.jsonl"
    python "$(dirname "$0")/levels.py" "scored-$how.jsonl" policy kindness -o "levels-$how.json"
done
