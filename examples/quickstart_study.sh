#!/bin/sh
# The quickstart over several seeds, and against two more baselines at equal completion tokens: what
# docs/quickstart.md reports. About ten minutes a seed on two cores. Interrupted, it goes on where it was.
#
#     examples/quickstart_study.sh [FOLDER] [SEED…]
#
# Results land in docs/results/; `make docs` writes the tables from them.
set -e
here=$(cd "$(dirname "$0")/.." && pwd)
home=${1:-study}
[ $# -gt 0 ] && shift

for seed in ${*:-0 1 2}; do
    irlhf quickstart --seed "$seed" -o "$home/$seed"
    cd "$home/$seed"
    for baseline in chosen top; do
        irlhf finetune scored.jsonl -r rewards.yaml --model tiny --template template.yaml --epochs 6 --batch 8 \
            --context 256 --seed "$seed" --baseline $baseline -o $baseline
        irlhf sample $baseline examples.jsonl --limit 120 --max-tokens 100 --seed "$seed" \
            -t kindness=data -t detail=data -n 8 -o samples-$baseline.jsonl
        irlhf score samples-$baseline.jsonl -r rewards.yaml -o scored-samples-$baseline.jsonl
    done
    irlhf eval gold-samples.jsonl scored-samples-*.jsonl -o eval-baselines.json
    irlhf plot eval-baselines.json -o plots-baselines
    python "$here/docs/generate.py" --keep eval-baselines.json "quickstart-$seed"
    cd - > /dev/null
done
