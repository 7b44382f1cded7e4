# ruff: noqa: RUF001 - special tokens of DeepSeek
"""Chat templates of the structure of well-known bases, rewritten for tests, and small models that use them.

docs/chat-templates.md has the public originals that they were compared with.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

_CALLS = (
    "{% for c in m.tool_calls or [] %}{{ '\n' if m.content or NEWLINE or not loop.first }}<tool_call>\n"
    '{"name": "{{ (c.function or c).name }}", "arguments": {{ (c.function or c).arguments | tojson }}}\n</tool_call>'
    "{% endfor %}"
)
_CHATML_PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}" + _CHATML_PROMPT
)
_TOOLS = "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}"
_ALTERNATE = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
)
_QWEN = (
    "{% if messages[0].role == 'system' or tools or DEFAULT %}<|im_start|>system\n"
    "{{ messages[0].content if messages[0].role == 'system' else DEFAULT }}"
    "{% if tools %}\n\n# Tools\n<tools>\n" + _TOOLS + "</tools>{% endif %}<|im_end|>\n{% endif %}"
    "{% set ns = namespace(asked=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.asked = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}{% if m.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}"
    "{{ '\n' }}<tool_response>\n{{ m.content }}\n</tool_response>"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}"
    "{% elif m.role == 'user' or (m.role == 'system' and not loop.first) %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% elif m.role == 'assistant' %}<|im_start|>assistantANSWER" + _CALLS + "<|im_end|>\n{% endif %}{% endfor %}"
) + _CHATML_PROMPT
_QWEN2_ANSWER = "{{ '\n' + m.content if m.content }}"
_QWEN3_ANSWER = (
    "{% set c = m.content %}{% set r = m.reasoning_content or '' %}{% if not r and '</think>' in c %}"
    "{% set r = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}{{ '\n' }}"
    "{% if loop.index0 > ns.asked and (loop.last or r) %}"
    "{{ '<think>\n' + r.strip('\n') + '\n</think>\n\n' + c.lstrip('\n') }}{% else %}{{ c }}{% endif %}"
)
_LLAMA3 = (
    "{{ bos_token }}{% set first = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% set turns = messages[1:] if messages[0].role == 'system' else messages %}"
    "<|start_header_id|>system<|end_header_id|>\n\n"
    "Today: {{ strftime_now('%d %b %Y') }}\n\n{{ first | trim }}<|eot_id|>"
    "{% for m in turns %}{% if 'tool_calls' in m %}{% if m.tool_calls | length != 1 %}"
    "{{ raise_exception('only one call at once') }}{% endif %}<|start_header_id|>assistant<|end_header_id|>\n\n"
    '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}'
    "<|eot_id|>{% elif m.role == 'tool' %}<|start_header_id|>ipython<|end_header_id|>\n\n"
    "{{ m.content | tojson }}<|eot_id|>{% else %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{% if loop.first and tools %}Given these functions, answer with a call.\n" + _TOOLS + "\n{% endif %}"
    "{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_GEMMA3 = (
    "{{ bos_token }}{% set first = '' %}{% set turns = messages %}{% if messages[0].role == 'system' %}"
    "{% set first = messages[0].content + '\n\n' %}{% set turns = messages[1:] %}{% endif %}"
    "{% for m in turns %}" + _ALTERNATE + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ first if loop.first }}{% if m.content is not string %}{{ raise_exception('not a text') }}{% endif %}"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# As in Nemo: ids of nine characters, and a system message in the last user turn, if no message follows.
_MISTRAL = (
    "{{ bos_token }}{% set turns = messages[1:] if messages[0].role == 'system' else messages %}"
    "{% set users = turns | selectattr('role', 'equalto', 'user') | list %}{% set ns = namespace(i=0) %}"
    "{% for m in turns %}{% if m.role != 'tool' and m.tool_calls is not defined %}"
    "{% if (m.role == 'user') != (ns.i % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% set ns.i = ns.i + 1 %}{% endif %}{% endfor %}{% for m in turns %}{% if m.role == 'user' %}"
    "{% if tools and m == users[-1] %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}[INST]"
    "{% if loop.last and turns | length < messages | length %}{{ messages[0].content + '\n\n' }}{% endif %}"
    "{{ m.content }}[/INST]{% elif m.tool_calls is defined %}[TOOL_CALLS][{% for c in m.tool_calls %}"
    "{% if not c.id is defined or c.id | length != 9 %}{{ raise_exception('nine characters') }}{% endif %}"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}'
    "{{ ', ' if not loop.last }}{% endfor %}]{{ eos_token }}{% elif m.role == 'tool' %}"
    "{% if m.tool_call_id | length != 9 %}{{ raise_exception('nine characters') }}{% endif %}"
    '[TOOL_RESULTS]{"content": {{ m.content }}, "call_id": "{{ m.tool_call_id }}"}[/TOOL_RESULTS]'
    "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)
_PHI4 = (
    "{% for m in messages %}{% if m.role in ['system', 'user', 'assistant'] %}"
    "{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
)
_R1 = (
    "{{ bos_token }}{% set ns = namespace(is_tool=false) %}{% for m in messages if m.role == 'system' %}"
    "{{ m.content }}{% endfor %}{% for m in messages %}"
    "{% if m.role == 'user' %}{{ '<｜User｜>' + m['content'] }}{% set ns.is_tool = false %}"
    "{% elif m.role == 'tool' %}<｜tool▁output▁begin｜>{{ m.content }}<｜tool▁output▁end｜>{% set ns.is_tool = true %}"
    "{% elif m.role == 'assistant' and m['content'] is none %}<｜Assistant｜>{% for c in m.tool_calls %}"
    "{{ '<｜tool▁call▁begin｜>' + c.function.name + '\n```json\n' + c.function.arguments + '\n```' }}"
    "<｜tool▁call▁end｜>"
    "{% endfor %}{{ eos_token }}{% elif m.role == 'assistant' %}{{ '' if ns.is_tool else '<｜Assistant｜>' }}"
    "{{ m['content'].split('</think>')[-1] + eos_token }}{% set ns.is_tool = false %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt and not ns.is_tool %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
_SMOLLM2 = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
) + _CHATML_PROMPT
_SMOLLM3 = (
    "{% set own = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% set mode = '/no_think' if '/no_think' in own else '/think' %}"
    "<|im_start|>system\nToday Date: {{ strftime_now('%d %B %Y') }}\nReasoning Mode: {{ mode }}\n"
    "{{ own.replace('/no_think', '').replace('/think', '').rstrip() or 'You are SmolLM.' }}\n"
    "{% for t in xml_tools or [] %}{{ t }}{% endfor %}<|im_end|>\n"
    "{% for m in messages %}{% set c = m.content if m.content is string else '' %}{% if m.role == 'assistant' %}"
    "{% generation %}<|im_start|>assistant\n{% if mode == '/no_think' %}<think>\n\n</think>\n{% endif %}"
    "{{ c.lstrip('\n') }}<|im_end|>\n{% endgeneration %}"
    "{% elif m.role in ['user', 'tool'] %}<|im_start|>user\n{{ c }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if mode == '/no_think' %}<think>\n\n</think>\n"
    "{% endif %}{% endif %}"
)
_GPT_OSS = (
    "<|start|>system<|message|>You are ChatGPT.\nCurrent date: {{ strftime_now('%Y-%m-%d') }}<|end|>"
    "{% set own = messages[0].content if messages[0].role in ['system', 'developer'] else '' %}"
    "{% if tools or own %}<|start|>developer<|message|>{{ own }}"
    "{% for t in tools or [] %}type {{ t.function.name }} = (_: any) => any;{% endfor %}<|end|>{% endif %}"
    "{% set ns = namespace(call='') %}{% for m in messages %}"
    "{% if m.role == 'user' %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}"
    "{% elif m.role == 'tool' %}{% if not ns.call %}{{ raise_exception('no call before') }}{% endif %}"
    "<|start|>functions.{{ ns.call }} to=assistant<|channel|>commentary<|message|>{{ m.content | tojson }}<|end|>"
    "{% elif m.role == 'assistant' and 'tool_calls' in m %}{% set ns.call = m.tool_calls[0].function.name %}"
    "{% if m.content and m.thinking %}{{ raise_exception('content or thinking') }}{% elif m.content or m.thinking %}"
    "<|start|>assistant<|channel|>analysis<|message|>{{ m.content or m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant to=functions.{{ ns.call }}"
    "<|channel|>commentary json<|message|>{{ m.tool_calls[0].function.arguments | tojson }}<|call|>"
    "{% elif m.role == 'assistant' %}{% set last = loop.last and not add_generation_prompt %}"
    "{% if last and 'thinking' in m %}{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}"
    "{% endif %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
    "{{ '<|return|>' if last else '<|end|>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


@dataclass(frozen=True)
class BaseTemplate:
    """A chat template, the eos token of its tokenizer, and what a probe must find."""

    text: str
    eos: str
    prefix: str
    end: str
    opening: str = ""
    bos: str = ""
    tools: bool = True  # shows tools
    calls: bool = True  # shows a tool call as the answer
    results: tuple[str, ...] | None = ()  # what it drops of a call and its result; None if it rejects them


_IM = "<|im_start|>assistant\n", "<|im_end|>"
_THINK = "<think>\n\n</think>\n\n"
BASES = {
    "Qwen2.5": BaseTemplate(
        _QWEN.replace("DEFAULT", "'You are Qwen.'").replace("ANSWER", _QWEN2_ANSWER).replace("NEWLINE", "true"),
        "<|endoftext|>",
        *_IM,
    ),
    "Qwen3": BaseTemplate(
        _QWEN.replace("DEFAULT", "''").replace("ANSWER", _QWEN3_ANSWER).replace("NEWLINE", "false"),
        "<|im_end|>",
        *_IM,
        _THINK,
    ),
    "Llama 3": BaseTemplate(
        _LLAMA3,
        "<|end_of_text|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
        bos="<|begin_of_text|>",
    ),
    "Gemma 3": BaseTemplate(
        _GEMMA3, "<eos>", "<start_of_turn>model\n", "<end_of_turn>", "", "<bos>", tools=False, calls=False, results=None
    ),
    "Mistral": BaseTemplate(_MISTRAL, "</s>", "", "</s>", bos="<s>"),
    "Phi-4": BaseTemplate(
        _PHI4,
        "<|endoftext|>",
        "<|im_start|>assistant<|im_sep|>",
        "<|im_end|>",
        tools=False,
        calls=False,
        results=("the tool message", "an earlier tool call"),
    ),
    "DeepSeek-R1-Distill": BaseTemplate(
        _R1,
        "<｜end▁of▁sentence｜>",
        "<｜Assistant｜><think>\n",
        "<｜end▁of▁sentence｜>",
        "\n</think>\n\n",
        bos="<｜begin▁of▁sentence｜>",
        tools=False,
        calls=False,  # transformers removes the null content that the template looks for
        results=("an earlier tool call",),
    ),
    "SmolLM2": BaseTemplate(_SMOLLM2, "<|im_end|>", *_IM, tools=False, calls=False, results=("an earlier tool call",)),
    "SmolLM3": BaseTemplate(_SMOLLM3, "<|im_end|>", *_IM, tools=False, calls=False, results=("an earlier tool call",)),
    "gpt-oss": BaseTemplate(
        _GPT_OSS, "<|return|>", "<|start|>assistant", "<|return|>", "<|channel|>final<|message|>", calls=False
    ),
}
_SPECIALS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|begin_of_text|>", "<|end_of_text|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    *("<s>", "</s>", "[INST]", "[/INST]", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>"),
    *("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
    *("<｜Assistant｜>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>", "<|return|>"),
]


def tokenizer_of(template: str | None, eos: str = "", bos: str = "") -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer with the special tokens of all bases."""
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=_SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces.train_from_iterator(["say red", "the colour is blue", "system user assistant tool"] * 3, trainer)
    named = {"eos_token": eos, "pad_token": "<|endoftext|>"} if eos else {}
    named |= {"bos_token": bos} if bos else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, clean_up_tokenization_spaces=False, **named)
    tokenizer.chat_template = template
    return tokenizer


def save_base(folder: Path, tokenizer: PreTrainedTokenizerFast, context: int = 256) -> Path:
    """Save a small random Llama with a tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=context,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
