#!/usr/bin/env bash
# Rewards from numbers in the data, without a model: whether a solution is correct, and human ratings of a reply. jq
# converts each data set for `irlhf prepare`.
#
#     examples/columns.sh DATA [FOLDER]
#
# DATA holds gsm8k/example_model_solutions.jsonl (openai/grade-school-math: four models' solutions of each
# question, `is_correct`) and topical_chat/topical_chat.json (maszhongming/UniEval: six attributes of a reply).
set -euo pipefail

data=$(realpath "$1")
mkdir -p "${2:-columns}" && cd "${2:-columns}"

jq -c '.question as $question | to_entries[] | select(.value | type == "object")
    | {prompt: $question, group: $question, completion: .value.solution, solver: .key} + .value | del(.solution)' \
    "$data"/gsm8k/example_model_solutions.jsonl | irlhf prepare - -o solutions.jsonl
cat > solutions.yaml <<'YAML'
rewards:
  correct: {column: is_correct}                 # true and false are 1 and 0
  short:   {scorer: length, direction: lower}
YAML
irlhf score solutions.jsonl -r solutions.yaml -o scored-solutions.jsonl

jq -c '.[] | {prompt: .source, group: .source, completion: .system_output, system: .system_id, scores}' \
    "$data"/topical_chat/topical_chat.json | irlhf prepare - -o replies.jsonl
cat > replies.yaml <<'YAML'
rewards:
  understandable: {column: scores.understandability}   # 0 to 1; a dot selects a key of an object
  natural:        {column: scores.naturalness}         # 1 to 3
  coherent:       {column: scores.coherence}           # 1 to 3
  engaging:       {column: scores.engagingness}        # 1 to 3
  grounded:       {column: scores.groundedness}        # 0 to 1
  overall:        {column: scores.overall}             # 1 to 5
YAML
irlhf score replies.jsonl -r replies.yaml -o scored-replies.jsonl
