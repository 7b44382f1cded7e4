#!/bin/sh
# Runs rounds that drop at random as many samples as the guard of other rounds dropped.
#
#     sh random_drop.sh RUN OPTIONS...
set -e
run=$1
shift
share=$(python -c '
import json, sys
rows = json.load(open(sys.argv[1]))["rounds"][1:]
dropped = sum(row["drawn"].get("dropped by entropy", 0) for row in rows)
print(dropped / (dropped + sum(row["drawn"]["kept"] for row in rows)))' "$run/rounds.json")
irlhf rounds scored.jsonl "$@" --keep "distinct,random=$share"
