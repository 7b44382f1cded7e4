"""What one server takes and tells, as far as its refusals have taught."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from irlhf.openai_api.server_logprobs import TOPS, WHOLE

_OLD, _NEW = "max_tokens", "max_completion_tokens"
_LOGPROBS = {"logprobs", "top_logprobs"}
_SPARED = {"model", "messages", "temperature", "top_p", _OLD, _NEW, "n", *_LOGPROBS}  # not to be left out for a word


@dataclass(frozen=True)
class ServerCapabilities:
    """How a server is asked."""

    limit: str = _OLD  # what it calls the most tokens; servers that know the new name alone say so
    top: int = TOPS[0]  # likeliest tokens that it tells
    tells: bool = True  # logprobs at all
    plural: bool = True  # several completions in one request
    refused: frozenset[str] = frozenset()  # other fields that it does not take

    def singly(self) -> "ServerCapabilities":
        """Return the habits of a server that gives one completion a request."""
        return replace(self, plural=False)

    def changes_since(self, before: "ServerCapabilities") -> Iterator[str]:
        """Yield what a user should hear of since `before`."""
        if gone := sorted(self.refused - before.refused):
            yield f"the server takes no {', '.join(gone)}: its own defaults hold"
        if before.tells and not self.tells:
            yield "the server takes no request for logprobs"
        elif self.top < before.top:
            yield f"the server lists fewer than {before.top} of the likeliest tokens; asked for {self.top}"
        if before.plural and not self.plural:
            yield "the server gives one completion a request, so every sample is a request of its own"


def downgrade(capabilities: ServerCapabilities, body: Mapping[str, object], reason: str) -> ServerCapabilities:
    """Return how to ask a server that refused a request for this reason; as before, where it names nothing of it."""
    named = {name for name in body if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", reason)}
    if _OLD in body and _NEW in reason:
        return replace(capabilities, limit=_NEW)
    if named & _LOGPROBS:
        fewer = [top for top in TOPS if top < capabilities.top]
        return replace(capabilities, top=fewer[0]) if fewer else replace(capabilities, tells=False)
    if "n" in named:
        return capabilities.singly()
    gone = named - _SPARED
    if gone & WHOLE.keys():
        gone |= WHOLE.keys()
    return replace(capabilities, refused=capabilities.refused | gone)
