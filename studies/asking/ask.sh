#!/bin/sh
# ask.sh COUNT KIND SEED: ask for the first COUNT rewards, all of one kind of target.
set -e
count=$1 kind=$2 seed=$3
set --
for name in kindness detail brief simple; do
    [ "$count" -gt 0 ] && set -- "$@" -t "$name=$kind"
    count=$((count - 1))
done
exec python -m irlhf sample policy examples.jsonl --limit 120 --max-tokens 100 --seed "$seed" "$@" -n 8 -o "samples-$kind.jsonl"
