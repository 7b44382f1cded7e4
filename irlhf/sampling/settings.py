"""Settings of `irlhf sample`."""

from dataclasses import dataclass

from irlhf.core.errors import ConfigError
from irlhf.core.example import TRAIN, VALIDATION
from irlhf.policy.escaping import ESCAPED

AGAINST = NOTHING, OPPOSITE = ("none", "opposite")  # the second prompt of guidance
ALL = "all"
BASE_SPLITS = f"{TRAIN},{VALIDATION}"  # the splits for training
MOST_GUIDANCE = 20
OPPOSITE_KEY = "against_opposite"  # in `decoding`: 1 if guidance used the opposite targets


@dataclass(frozen=True)
class SampleSettings:
    """Targets, prompts and decoding parameters of `irlhf sample`.

    `target` holds NAME=VALUE texts. `weights` requests a weighted mix of other rewards ("2*helpful + 3*harmless", or a
    rewards.yaml with weights), within the ranges given by the targets. `pick` chooses the targets of a mix: those of
    the `best` training rows, of the single best row (`front`), or of the request that `achieved` most on validation
    prompts. If empty, the best available method is used. With `raw`, numbers are written into the prompt unchanged:
    they are not clipped to the scale, and the calibration is not applied.

    `n` samples are drawn for every prompt and every point of a sweep. Prompts with a split are used only if `split`
    (one or several, separated by commas) includes it; prompts without a split are always used. The default is the test
    split; for a base model, whose samples are training data, the training and validation splits. `reference` is a
    policy's folder, or a base model's folder or hub id, which computes the logprob of every completion after a prompt
    without rewards. `guidance` above 1 moves the logits away from those of a prompt without targets (`against="none"`)
    or with opposite targets (`against="opposite"`, see `opposite` in irlhf/sampling/target_resolution.py); 1 means no
    guidance. `precision` is the format of the weights: `bf16`, `fp32` or `auto`, which is the format of an interrupted
    run, else the faster one.

    A prompt that the chat template refuses is rejected. `on_bad_row="skip"` also rejects rows that cannot be read.

    `shard` ("2/8") selects the part of the prompts whose ids fall into this shard. `spoof` says how user text that
    looks like a reward line is handled: it is escaped (`escape`), its prompt is rejected (`refuse`), or it is left
    unchanged (`allow`).

    With `base_url`, no weights are loaded. A server draws the samples, at most `concurrency` at a time, from the model
    `served_name` (by default the server's only model). Its key is in the environment variable `api_key_env`. `api` is
    `completions` (token ids) or `chat` (messages). Hosted policies are always sampled remotely; the default is the
    provider's chat API.
    """

    target: tuple[str, ...] = ()
    weights: str = ""
    n: int = 1
    split: str = ""
    limit: int = 0  # number of prompts; 0 means all
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
    base_url: str = ""  # including /v1
    served_name: str = ""
    api_key_env: str = ""  # empty means OPENAI_API_KEY
    concurrency: int = 16
    api: str = ""
    precision: str = "auto"
    against: str = NOTHING
    on_bad_row: str = "stop"

    def __post_init__(self) -> None:
        if isinstance(self.target, str):
            raise ConfigError(f"target={self.target!r} is a text; pass a tuple, as in target=({self.target!r},)")
        if self.n < 1:
            raise ConfigError(f"n is {self.n}; it must be at least 1")
        if self.temperature < 0:
            raise ConfigError(f"temperature is {self.temperature}; it must be at least 0")

    @property
    def decoding(self) -> dict[str, float]:
        """The sampling parameters, as stored in every row."""
        drawn = {name: getattr(self, name) for name in ("temperature", "top_p", "max_tokens", "guidance")}
        return drawn | ({OPPOSITE_KEY: 1.0} if self.against == OPPOSITE else {})
