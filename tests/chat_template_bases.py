# ruff: noqa: RUF001 - special tokens of DeepSeek
"""Chat templates of the structure of well-known bases, rewritten for tests, and small models that use them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

_CALLS = (
    "{% for c in m.tool_calls or [] %}\n<tool_call>\n"
    '{"name": "{{ (c.function or c).name }}", "arguments": {{ (c.function or c).arguments | tojson }}}\n</tool_call>'
    "{% endfor %}"
)
_CHATML_PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}" + _CHATML_PROMPT
)
_TOOLS = "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}"
_QWEN = (
    "{% if messages[0].role == 'system' or tools %}<|im_start|>system\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}\n{% endif %}"
    + _TOOLS
    + "<|im_end|>\n{% endif %}{% for m in messages %}{% if m.role == 'tool' %}"
    "<|im_start|>user\n<tool_response>\n{{ m.content }}\n</tool_response><|im_end|>\n"
    "{% elif m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}<|im_start|>assistant\nANSWER" + _CALLS + "<|im_end|>\n{% endif %}{% endfor %}"
) + _CHATML_PROMPT
_QWEN3_ANSWER = (
    "{% set c = m.content or '' %}{% set r = m.reasoning_content or '' %}{% if '</think>' in c %}"
    "{% set r = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}"
    "{% endif %}{% if loop.last or r %}<think>\n{{ r.strip('\n') }}\n</think>\n\n{% endif %}{{ c }}"
)
_LLAMA3 = (
    "{{ bos_token }}{% if tools %}<|start_header_id|>system<|end_header_id|>\n\n" + _TOOLS + "<|eot_id|>{% endif %}"
    "{% for m in messages %}{% if m.tool_calls %}<|start_header_id|>assistant<|end_header_id|>\n\n"
    '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}'
    "<|eot_id|>{% else %}<|start_header_id|>{{ 'ipython' if m.role == 'tool' else m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_GEMMA3 = (
    "{{ bos_token }}{% set first = '' %}{% set turns = messages %}{% if messages[0].role == 'system' %}"
    "{% set first = messages[0].content ~ '\n\n' %}{% set turns = messages[1:] %}{% endif %}{% for m in turns %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ first if loop.first }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.system = m.content ~ '\n\n' %}{% elif m.role == 'user' %}"
    "{% if tools and loop.last %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "[INST] {{ ns.system }}{{ m.content }}[/INST]{% set ns.system = '' %}{% elif m.tool_calls %}[TOOL_CALLS] ["
    '{% for c in m.tool_calls %}{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "{% endfor %}]{{ eos_token }}{% elif m.role == 'tool' %}[TOOL_RESULTS] {{ m.content }}[/TOOL_RESULTS]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
_PHI4 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
)
_R1 = (
    "{{ bos_token }}{% set ns = namespace(is_tool=false) %}{% for m in messages %}{% if m.role == 'system' %}"
    "{{ m.content }}{% elif m.role == 'user' %}{{ '<｜User｜>' + m['content'] }}{% set ns.is_tool = false %}"
    "{% elif m.role == 'tool' %}<tool_output>{{ m.content }}</tool_output>{% set ns.is_tool = true %}"
    "{% elif m['content'] is none %}<｜Assistant｜>{% for c in m.tool_calls %}"
    "{{ '<tool_call>' + c['function']['name'] + '\n```json\n' + c['function']['arguments'] + '\n```</tool_call>' }}"
    "{% endfor %}{{ eos_token }}{% else %}<｜Assistant｜>"
    "{{ m['content'].split('</think>')[-1] }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt and not ns.is_tool %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
_SMOLLM2 = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}" + CHATML
)
_SMOLLM3 = (
    "{% set mode = '/no_think' if messages[0].role == 'system' and '/no_think' in messages[0].content else '/think' %}"
    "<|im_start|>system\nReasoning Mode: {{ mode }}\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
    "{% for t in xml_tools or [] %}{{ t }}{% endfor %}<|im_end|>\n"
    "{% for m in messages if m.role != 'system' %}{% if m.role == 'assistant' %}{% generation %}<|im_start|>assistant\n"
    "{% if mode == '/no_think' %}<think>\n\n</think>\n{% endif %}{{ m.content.lstrip('\n') }}<|im_end|>\n"
    "{% endgeneration %}{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if mode == '/no_think' %}<think>\n\n</think>\n"
    "{% endif %}{% endif %}"
)
_GPT_OSS = (
    "<|start|>system<|message|>You are ChatGPT.<|end|>{% if tools or messages[0].role == 'system' %}"
    "<|start|>developer<|message|>{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
    "{% for t in tools or [] %}type {{ t.function.name }} = (_: any) => any;{% endfor %}<|end|>{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}<|start|>user<|message|>{{ m.content }}<|end|>"
    "{% elif m.role == 'tool' %}<|start|>functions to=assistant<|message|>{{ m.content | tojson }}<|end|>"
    "{% elif m.tool_calls %}<|start|>assistant to=functions.{{ m.tool_calls[0].function.name }}"
    "<|channel|>commentary json<|message|>{{ m.tool_calls[0].function.arguments | tojson }}<|call|>"
    "{% elif m.role == 'assistant' %}{% if m.thinking %}<|start|>assistant<|channel|>analysis<|message|>"
    "{{ m.thinking }}<|end|>{% endif %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}"
    "{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
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
    system: bool = True  # shows a system message
    tools: bool = True  # shows tools
    calls: bool = True  # shows tool calls


_IM = "<|im_start|>assistant\n", "<|im_end|>"
_THINK = "<think>\n\n</think>\n\n"
BASES = {
    "Qwen2.5": BaseTemplate(_QWEN.replace("ANSWER", "{{ m.content or '' }}"), "<|endoftext|>", *_IM),
    "Qwen3": BaseTemplate(_QWEN.replace("ANSWER", _QWEN3_ANSWER), "<|im_end|>", *_IM, _THINK),
    "Llama 3": BaseTemplate(
        _LLAMA3,
        "<|end_of_text|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
        bos="<|begin_of_text|>",
    ),
    "Gemma 3": BaseTemplate(
        _GEMMA3, "<eos>", "<start_of_turn>model\n", "<end_of_turn>", bos="<bos>", tools=False, calls=False
    ),
    "Mistral": BaseTemplate(_MISTRAL, "</s>", "", "</s>", bos="<s>"),
    "Phi-4": BaseTemplate(
        _PHI4, "<|endoftext|>", "<|im_start|>assistant<|im_sep|>", "<|im_end|>", tools=False, calls=False
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
    ),
    "SmolLM2": BaseTemplate(_SMOLLM2, "<|im_end|>", *_IM, tools=False, calls=False),
    "SmolLM3": BaseTemplate(_SMOLLM3, "<|im_end|>", *_IM, tools=False, calls=False),
    "gpt-oss": BaseTemplate(_GPT_OSS, "<|return|>", "<|start|>assistant", "<|return|>", "<|channel|>final<|message|>"),
}
_SPECIALS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|begin_of_text|>", "<|end_of_text|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    *("<s>", "</s>", "[INST]", "[/INST]", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>"),
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
