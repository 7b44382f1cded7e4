#!/usr/bin/env bash
# All commands on Anthropic's HH, from raw transcripts to plots, for a policy and a baseline without reward
# lines. The reward is `length`, the number of words, because it is easy to check.
#
#     examples/hh.sh DATA BASE [FOLDER]
#
# DATA holds harmless-base.test.jsonl.gz and helpful-base.test.jsonl.gz; BASE is any causal language model
# as a Hugging Face folder or hub id. An interrupted run resumes.
# EPOCHS, LIMIT, PROMPTS and N make it smaller: LIMIT=300 EPOCHS=0.2 PROMPTS=10 examples/hh.sh …
set -euo pipefail

template=$(realpath "$(dirname "$0")/hh.yaml")
data=$(realpath "$1")
base=$2
[ -d "$base" ] && base=$(realpath "$base")
mkdir -p "${3:-hh}" && cd "${3:-hh}"

cat > rewards.yaml <<'YAML'
rewards:
  length: {scorer: length}
YAML

irlhf prepare "$data"/harmless-base.test.jsonl.gz "$data"/helpful-base.test.jsonl.gz \
    --limit "${LIMIT:-0}" -o examples.jsonl
irlhf score examples.jsonl -r rewards.yaml -o scored.jsonl

for policy in policy plain; do
    baseline=$([ $policy = plain ] && echo "--baseline plain" || true)
    irlhf finetune scored.jsonl -r rewards.yaml --model "$base" --template "$template" --context 192 \
        --epochs "${EPOCHS:-4}" --batch 8 --drop 0 $baseline -o $policy
    irlhf sample $policy examples.jsonl -t length=data -n "${N:-8}" --limit "${PROMPTS:-150}" \
        --max-tokens 120 -o samples-$policy.jsonl
    irlhf score samples-$policy.jsonl -r rewards.yaml -o scored-$policy.jsonl
done

irlhf eval scored-policy.jsonl scored-plain.jsonl -o eval.json
irlhf plot eval.json scored.jsonl policy plain -o plots
