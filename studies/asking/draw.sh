#!/bin/sh
# draw.sh SEED HOW: ask for joint vectors of the training data, tokens drawn as HOW says.
exec python -m irlhf sample policy examples.jsonl --split validation --limit 120 --max-tokens 100 --seed "$1" \
    -t kindness=data -t detail=data -n 8 $2 -o "samples $2.jsonl"
