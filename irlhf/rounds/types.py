"""What stays the same from round to round, and the functions that every round calls."""

from dataclasses import dataclass, replace
from pathlib import Path

from irlhf.core import console
from irlhf.core.errors import DataError
from irlhf.evaluation.evaluate import evaluate
from irlhf.evaluation.settings import EvalSettings
from irlhf.io.files import read_rows
from irlhf.io.resumable import beside, counts_of
from irlhf.policy.policy_file import Policy
from irlhf.policy.rewards_file import Rewards
from irlhf.rounds.replay import Offline
from irlhf.rounds.settings import RoundsSettings
from irlhf.sampling.sample import sample
from irlhf.sampling.settings import SampleSettings
from irlhf.scoring.filters import select
from irlhf.scoring.score import score
from irlhf.scoring.settings import ScoreSettings, SelectSettings


@dataclass(frozen=True)
class RequestedTargets:
    """What samples request: a target for each reward, or a weighting of the rewards."""

    targets: tuple[str, ...] = ()  # NAME=VALUE
    weights: str = ""

    @property
    def options(self) -> list[str]:
        """The request as options of `irlhf sample`, for the record."""
        if self.weights:
            return ["--weights", self.weights, "--mix-from", "best"]
        return [option for target in self.targets for option in ("-t", target)]


@dataclass(frozen=True)
class Loop:
    """All that stays the same from round to round. Its methods do nothing for outputs that are complete."""

    out: Path
    scored: Path
    rewards: str
    named: Rewards
    start: Path  # the folder of the policy that the rounds go on from
    policy: Policy
    settings: RoundsSettings
    offline: Offline

    @property
    def seed(self) -> int:
        """The seed of all that is random."""
        return self.settings.training.seed

    def sample(
        self, policy: Path, prompts: Path, output: Path, requested: RequestedTargets, settings: SampleSettings
    ) -> None:
        """Sample a policy; `settings` hold what is neither requested nor the same in every round."""
        drawn = replace(
            settings,
            target=requested.targets,
            weights=requested.weights,
            pick="best" if requested.weights else "",
            max_tokens=self.settings.max_tokens,
            api_key_env=self.settings.hosted.api_key_env,
        )
        with console.silenced():
            sample(policy, prompts, output, drawn)

    def score(self, samples: Path, scored: Path, gold: bool = False) -> int:
        """Score samples; return how many got no reward, and say so. Raises DataError where none got one."""
        with console.silenced():
            score(samples, self.rewards, scored, ScoreSettings(gold=gold, on_bad_row="skip"))
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

    def select(self, scored: Path, kept: Path, rules: str, policy: Path) -> None:
        """Keep the scored samples that the rules choose."""
        with console.silenced():
            select(scored, kept, SelectSettings(rules=rules, policies=(str(policy),)))

    def evaluate(self, samples: list[Path], output: Path, policy: Path) -> None:
        """Evaluate scored samples of a policy."""
        with console.silenced():
            evaluate(samples, output, EvalSettings(policies=(str(policy),)))
