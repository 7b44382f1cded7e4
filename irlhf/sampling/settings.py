"""Settings of `irlhf sample`."""

from dataclasses import dataclass

from irlhf.core.example import TRAIN, VALIDATION
from irlhf.policy.escaping import ESCAPED

AGAINST = NOTHING, OPPOSITE = ("none", "opposite")  # what guidance draws away from
ALL = "all"
BASE_SPLITS = f"{TRAIN},{VALIDATION}"  # what a policy can be trained on


MOST_GUIDANCE = 20


OPPOSITE_KEY = "against_opposite"  # in `decoding`, whose values are numbers: 1 where guidance drew so


@dataclass(frozen=True)
class SampleSettings:
    """What is asked, of which prompts, and how tokens are drawn.

    `target` holds NAME=VALUE texts; `weights` asks for a mix of other rewards ("2*helpful + 3*harmless", or a
    rewards.yaml whose weights are taken), within the ranges that the targets leave. `pick` says how a mix finds its
    targets: from the `best` training rows, from the one row at the `front`, or as the request that `achieved` most
    on validation prompts; empty, as was measured to be best. With `raw` numbers stand in the prompt as they were
    written, neither held to the scale nor put through what was measured.

    `n` samples are drawn for every prompt and every point of a sweep. Of prompts with a split only those of `split`
    are asked, one or several parted by commas; prompts without one always are. Left open it is the test split, and
    for a base, whose samples a policy is trained on, the training and validation splits. `reference` is a policy's
    folder, or a base's folder or hub id, that reads every completion behind a prompt without rewards. `guidance`
    above 1 draws away from what the policy says when it is asked for nothing (`against` is `none`), or for the
    opposite (`opposite`, see irlhf/sampling/opposite_target.py); 1 is none. `precision` is the format of the
    weights: `bf16`, `fp32`, or `auto`, which is what an interrupted run had recorded, else what is faster here.

    `shard` ("2/8") leaves all but one part of the prompts to other runs: those whose ids fall into it. `spoof` says
    what becomes of user text that looks like a reward: it is read as text (`escape`), its prompt is set aside
    (`refuse`), or it is let through (`allow`).

    With `base_url` no weights are loaded: a server that holds the policy under `served_name` (left out: the one model
    that it holds) draws, at most `concurrency` samples at a time; its key is in the environment variable
    `api_key_env`. It is asked with token ids, or with messages (`api` is `completions` or `chat`). A policy whose
    weights a host keeps is always drawn by a server: by that host in a chat, where nothing else is said.
    """

    target: tuple[str, ...] = ()
    weights: str = ""
    n: int = 1
    split: str = ""
    limit: int = 0  # prompts; 0 is all
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 128
    batch: int = 64
    seed: int = 0
    reference: str = ""
    shard: str = ""
    guidance: float = 1.0  # in [0, MOST_GUIDANCE]
    pick: str = ""
    raw: bool = False
    spoof: str = ESCAPED
    base_url: str = ""  # up to and with /v1
    served_name: str = ""
    api_key_env: str = ""  # OPENAI_API_KEY
    concurrency: int = 16
    api: str = ""
    precision: str = "auto"
    against: str = NOTHING

    @property
    def decoding(self) -> dict[str, float]:
        """How tokens are drawn, as every row says it."""
        drawn = {name: getattr(self, name) for name in ("temperature", "top_p", "max_tokens", "guidance")}
        return drawn | ({OPPOSITE_KEY: 1.0} if self.against == OPPOSITE else {})
