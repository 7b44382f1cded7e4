#!/bin/sh
# ask.sh COUNT SEED: ask for the first COUNT rewards, with vectors of the data and with independent numbers.
set -e
here=$(dirname "$0") count=$1 seed=$2
data= uniform=
for name in kindness detail brief simple; do
    [ "$count" -gt 0 ] && data="$data -t $name=data" && uniform="$uniform -t $name=uniform"
    count=$((count - 1))
done
exec python "$here/asks.py" rewards-4.yaml "$seed" -o evals.json "data |$data" "uniform |$uniform"
