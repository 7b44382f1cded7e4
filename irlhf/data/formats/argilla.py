"""Argilla's pairs: an instruction and two responses, each with its mean rating."""

from functools import partial

from irlhf.data.formats.base import Format, has_keys
from irlhf.data.formats.pairwise import Keys, pair

_KEYS = Keys("chosen_response", "rejected_response", "instruction")

ARGILLA = Format(
    "argilla",
    fields='"instruction", "chosen_response", "rejected_response", often chosen_avg_rating',
    becomes="two rows per pair, labelled, each with its avg_rating",
    matches=has_keys(*_KEYS),
    read=partial(pair, keys=_KEYS),
)
