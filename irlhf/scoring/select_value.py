"""Select the reward from the numbers of a scorer's reply."""

import numpy as np

from irlhf.core.errors import ConfigError
from irlhf.core.example import finite
from irlhf.core.registry import did_you_mean
from irlhf.policy.rewards_file import Reward
from irlhf.scoring.scorers.base import Failure, Reply, Traits


def read(name: str, reward: Reward, reply: Reply, traits: Traits) -> float | Failure:
    """Return the number selected by `label:` and `read:`.

    logit        the model's output, unchanged
    probability  the softmax over all labels, or the logistic function if labels do not exclude each other
    difference   the log-odds of the label: its logit minus the log-sum-exp of all others (for two labels, the
                 difference of their logits)

    Returns a Failure if a number is not finite. Raises ConfigError if the scorer has no such label.
    """
    label = _label(reward.label, reply, traits)
    if isinstance(label, Failure):
        if traits.varies:
            return label
        raise ConfigError(f"{name}: {label.reason}")
    number = reply[label]
    if not finite(number):
        return Failure(f"reward '{name}' is {number!r:.40}, not a finite number")
    if not reward.read or reward.read == "logit":
        return number
    others = [other for key, other in reply.items() if key != label]
    if not all(map(finite, others)):
        return Failure(f"reward '{name}': another logit is not a finite number")
    odds = number if traits.link == "sigmoid" or not others else number - float(np.logaddexp.reduce(others))
    if reward.read == "difference":
        return odds
    from scipy.special import expit

    return float(expit(odds))


def _label(label: str, reply: Reply, traits: Traits) -> str | Failure:
    if not label and len(reply) == 1:
        return next(iter(reply))
    wanted = label or traits.usual
    if wanted in reply:
        return wanted
    if label:
        return Failure(f"the scorer has no label '{label}'{did_you_mean(label, reply)}", ConfigError)
    labels = ", ".join(reply)
    return Failure(f"the scorer returns {len(reply)} numbers ({labels}); choose one with `label:`", ConfigError)
