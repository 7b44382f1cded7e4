#!/bin/sh
# The whole pipeline. An interrupted run resumes; for other settings, change the output names.
#   DATA   rows of prompt and completion, of messages, or Anthropic HH transcripts
#   BASE   a causal language model: a folder, a hub id, or the built-in tiny
set -e
# DATA and BASE are relative to the current folder; the defaults are relative to this file.
[ -z "$DATA" ] || DATA=$(realpath "$DATA")
[ ! -d "$BASE" ] || BASE=$(realpath "$BASE")
cd "$(dirname "$0")"
DATA=${DATA:-data.jsonl}
BASE=${BASE:-tiny}

irlhf prepare "$DATA" -o examples.jsonl
irlhf score examples.jsonl -r rewards.yaml -o scored.jsonl
irlhf finetune scored.jsonl -r rewards.yaml --model "$BASE" --template template.yaml -o policy
irlhf sample policy examples.jsonl -t length=data -t sentiment=data -n 8 --limit 100 -o samples.jsonl
irlhf score samples.jsonl -r rewards.yaml -o scored-samples.jsonl
irlhf eval scored-samples.jsonl -o eval.json
irlhf plot eval.json scored.jsonl policy scored-samples.jsonl -o plots --report report.html
