"""State shared by all rounds, and the commands that every round runs."""

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
    """The targets of samples: one per reward, or a weighting of the rewards."""

    targets: tuple[str, ...] = ()  # NAME=VALUE
    weights: str = ""

    @property
    def options(self) -> list[str]:
        """The targets as options of `irlhf sample`."""
        if self.weights:
            return ["--weights", self.weights, "--mix-from", "best"]
        return [option for target in self.targets for option in ("-t", target)]


@dataclass(frozen=True)
class Loop:
    """State shared by all rounds. Its methods do nothing if their output is complete."""

    out: Path
    scored: Path
    rewards: str
    named: Rewards
    start: Path  # folder of the first policy
    policy: Policy
    settings: RoundsSettings
    offline: Offline

    @property
    def seed(self) -> int:
        """The random seed."""
        return self.settings.training.seed

    def sample(
        self, policy: Path, prompts: Path, output: Path, requested: RequestedTargets, settings: SampleSettings
    ) -> None:
        """Sample a policy; `requested` and the settings of the run override `settings`."""
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
        """Score samples; return and report the number without a reward. Raises DataError if all lack one."""
        with console.silenced():
            score(samples, self.rewards, scored, ScoreSettings(gold=gold, on_bad_row="skip"))
        unscored = counts_of(scored).get("rejected", 0)
        if not unscored:
            return 0
        reasons = beside(scored, ".rejected.jsonl")
        if not scored.stat().st_size:
            _, first = next(read_rows(reasons))
            raise DataError(
                f"{reasons}:1: no sample could be scored: {first['reason']}; fix the scorer, then delete {scored}"
            )
        console.warn(f"{unscored:,} of the samples in {samples} could not be scored and are skipped; see {reasons}")
        return unscored

    def select(self, scored: Path, kept: Path, policy: Path) -> None:
        """Write the scored samples that the rules of `--keep` keep."""
        with console.silenced():
            select(scored, kept, SelectSettings(rules=self.settings.keep, policies=(str(policy),)))

    def evaluate(self, samples: list[Path], output: Path, policy: Path) -> None:
        """Evaluate scored samples of a policy."""
        with console.silenced():
            evaluate(samples, output, EvalSettings(policies=(str(policy),)))
