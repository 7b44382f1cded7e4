"""The opposite of requested rewards, for guidance with `--against opposite`."""

from collections.abc import Mapping

from irlhf.policy.policy_file import Policy
from irlhf.policy.scales import UNIT
from irlhf.policy.templates import Bound, RequestedValue


def opposite(policy: Policy, requested: Mapping[str, RequestedValue], raw: bool = False) -> dict[str, RequestedValue]:
    """Return every target mirrored on its scale.

    A number x becomes 1 - x on a scale from 0 to 1, and 2m - x on any other, where m is the scaled mean of the
    training rows. At least x becomes at most x, and the reverse, if the policy's template has a line for it; otherwise
    it becomes the mirrored number. Numbers that no training row has are replaced by the nearest one, unless `raw`.
    """
    return {name: _opposite(policy, name, wish, raw) for name, wish in requested.items()}


def _opposite(policy: Policy, name: str, wish: RequestedValue, raw: bool) -> RequestedValue:
    if isinstance(wish, Bound):
        flipped = Bound("at_most" if wish.kind == "at_least" else "at_least", wish.number)
        if flipped.kind in policy.template.kinds:
            return flipped
    number = wish.number if isinstance(wish, Bound) else wish
    reward = policy.reward(name)
    mirrored = 1 - number if reward.scale.kind in UNIT else 2 * reward.scale(reward.mean) - number
    return mirrored if raw else policy.shown(name, mirrored)
