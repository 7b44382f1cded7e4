"""The built-in base `tiny`: a small, randomly initialized Llama with a tokenizer trained on the examples.

It needs no download and trains in a minute on two CPU cores.

As a reward model it is an encoder of the same size with mean pooling over all tokens. From a thousand pairs, it learns
better which words matter than a Llama head on the last token or a BERT head on the first token.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedTokenizerFast,
    set_seed,
)

from irlhf.core.example import Message
from irlhf.models.loading import device, soften_head
from irlhf.models.prompt_encoding import PLAIN_CHAT, SPEAKERS

_VOCABULARY = 1024  # tokens, before the reward lines
_WIDTH = 64
_INNER = 96  # of the feed-forward layers; wider layers were slower and not better
_LAYERS = 2
_HEADS = 4
_END = "<|end|>"


def make_tiny(conversations: Iterable[list[Message]], lines: Sequence[str], context: int, seed: int) -> tuple[Any, Any]:
    """Return a new model and its tokenizer.

    Each of `lines` (all possible reward lines) becomes one token, because a model of this size does not learn to read
    digits or to match a number with a name.
    """
    tokenizer = _train_tokenizer(map(_plain_chat, conversations), lines)
    set_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=_INNER,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        max_position_embeddings=context,
        # With tied embeddings, the loss would push away reward line tokens, which are never predicted.
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).to(device()), tokenizer


def make_tiny_classifier(conversations: Iterable[list[Message]], context: int, seed: int) -> tuple[Any, Any]:
    """Return a new one-logit classifier and its tokenizer."""
    tokenizer = _train_tokenizer(map(_plain_chat, conversations), ())
    set_seed(seed)
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=_INNER,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        max_position_embeddings=context,
        global_attn_every_n_layers=1,
        classifier_pooling="mean",
        num_labels=1,
        bos_token_id=None,
        cls_token_id=None,
        sep_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = ModernBertForSequenceClassification(config)
    soften_head(model)
    return model.to(device()), tokenizer


def _train_tokenizer(texts: Iterable[str], lines: Sequence[str]) -> Any:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    # Special tokens, so that the same text of a user is split and not read as one token.
    bpe.add_special_tokens([AddedToken(line, normalized=False) for line in lines])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=_END, pad_token=_END, clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = PLAIN_CHAT
    return tokenizer


def _plain_chat(messages: list[Message]) -> str:
    """Return a conversation in the format of PLAIN_CHAT, so that its speaker names become few tokens."""
    turns = (
        f"{SPEAKERS.get(message['role'], message['role'].capitalize())}: {message.get('content') or ''}"
        for message in messages
    )
    return "\n\n".join(turns)
