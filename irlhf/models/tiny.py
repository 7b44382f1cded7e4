"""The built-in base `tiny`: a small Llama from scratch, its tokenizer trained on the examples.

It needs no download and learns in a minute on two processor cores. It knows nothing but its examples.

As a reward model it is an encoder of that size whose head reads the mean over all tokens: from a thousand pairs it
learns which words matter better than a Llama, whose head reads the last token alone, or a BERT, which reads the first.
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
_INNER = 96  # of the feed-forward layers; wider ones cost steps and gained nothing
_LAYERS = 2
_HEADS = 4
_END = "<|end|>"


def make_tiny(conversations: Iterable[list[Message]], lines: Sequence[str], context: int, seed: int) -> tuple[Any, Any]:
    """Return a new model and its tokenizer.

    Every one of `lines` (each reward line there can be) becomes one token: a model of this size does not
    learn in time to read digits, nor to look up which name a number belongs to.
    """
    tokenizer = _train_tokenizer(map(_spoken, conversations), lines)
    set_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=_INNER,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        max_position_embeddings=context,
        # Tied, the embeddings of reward lines, which are never predicted, would be pushed away all the time.
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).to(device()), tokenizer


def make_tiny_classifier(conversations: Iterable[list[Message]], context: int, seed: int) -> tuple[Any, Any]:
    """Return a new classifier of one logit and its tokenizer."""
    tokenizer = _train_tokenizer(map(_spoken, conversations), ())
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
    # Special, so that the same words in user text are parted and never read as one.
    bpe.add_special_tokens([AddedToken(line, normalized=False) for line in lines])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=_END, pad_token=_END, clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = PLAIN_CHAT
    return tokenizer


def _spoken(messages: list[Message]) -> str:
    """Return a conversation as PLAIN_CHAT writes it, so that its frame costs few tokens."""
    turns = (
        f"{SPEAKERS.get(message['role'], message['role'].capitalize())}: {message.get('content') or ''}"
        for message in messages
    )
    return "\n\n".join(turns)
