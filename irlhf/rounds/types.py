"""What stays the same from round to round."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from irlhf.core import console
from irlhf.core.errors import DataError
from irlhf.io.files import read_rows
from irlhf.io.resumable import beside, counts_of
from irlhf.policy.policy_file import Policy
from irlhf.policy.rewards_file import Rewards
from irlhf.rounds.replay import Offline
from irlhf.rounds.settings import RoundsSettings

Run = Callable[[Sequence[str]], None]  # runs one irlhf command line


@dataclass(frozen=True)
class Loop:
    """All that stays the same from round to round."""

    out: Path
    scored: Path
    rewards: str
    named: Rewards
    start: Path  # the folder of the policy that the rounds go on from
    policy: Policy
    settings: RoundsSettings
    offline: Offline
    run: Run

    @property
    def seed(self) -> int:
        """The seed of all that is random."""
        return self.settings.training.seed

    @property
    def drawing(self) -> list[object]:
        """The flags of every `sample`."""
        key = self.settings.hosted.api_key_env
        return ["--max-tokens", self.settings.max_tokens, *(["--api-key-env", key] if key else [])]

    def command(self, *arguments: object) -> None:
        """Run one of the six commands; finished ones do nothing."""
        with console.hushed():
            self.run([*map(str, arguments), "-q"])

    def score(self, samples: Path, scored: Path, *more: object) -> int:
        """Score samples; return how many got no reward, and say so. Raises DataError where none got one."""
        self.command("score", samples, "-r", self.rewards, *more, "-o", scored, "--on-bad-row", "skip")
        aside = counts_of(scored).get("rejected", 0)
        if not aside:
            return 0
        why = beside(scored, ".rejected.jsonl")
        if not scored.stat().st_size:
            _, first = next(read_rows(why))
            raise DataError(
                f"{why}:1: no sample got its rewards: {first['reason']}; mend the scorer, then delete {scored}"
            )
        console.warn(f"{aside:,} of the samples in {samples} got no reward, and are left out; {why} says why")
        return aside
