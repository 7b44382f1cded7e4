"""Measure how much the reward line tells about held-out completions, in nats per completion.

For a completion c with prompt x and target r, and K targets r_1 … r_K that c does not satisfy:

    information = ln(K + 1) + log( p(c | x, r) / (p(c | x, r) + sum over k of p(c | x, r_k)) )
    margin      = log p(c | x, r) - log p(c | x, r_1)         (one alternative)

Both means are 0 for a model that ignores the reward line. The information is at most ln(K + 1); its expectation is a
lower bound of the mutual information between target and completion (van den Oord et al. 2018, arXiv 1807.03748).
"""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from irlhf.core.bootstrap import Bootstrap, Floats, clustered
from irlhf.core.example import Example
from irlhf.policy.steering_report import JOINT, SIBLING, Figures
from irlhf.training.batching import Collator, Encoded, Family, compared
from irlhf.training.losses import sequence_sums, token_losses
from irlhf.training.target_contrast import EncodePrompt
from irlhf.training.target_draw import Rewarded, TargetDraw, Wishes

ROWS = 64
ALTERNATIVES = 4  # number of targets of other rows

_TRIES = 16
_ROWS_A_PROMPT = 2
_TOKENS = 4096  # per forward pass


class Probe(NamedTuple):
    """A held-out family, the kind (reward, JOINT or SIBLING) of each of its comparisons, and its prompt cluster."""

    family: Family
    kinds: list[str]
    cluster: str


def measured_rows(examples: Iterable[Example]) -> list[Example]:
    """Return up to ROWS examples of the first prompts, at most two per prompt."""
    prompts: dict[str, list[Example]] = {}
    for example in examples:
        prompts.setdefault(example.cluster, []).append(example)
    pairs = [listed[:_ROWS_A_PROMPT] for listed in prompts.values()]
    return [example for pair in pairs[: ROWS // max(map(len, pairs), default=1)] for example in pair]


def probes(
    rows: Sequence[Rewarded], others: Sequence[Rewarded], encode: EncodePrompt, targets: TargetDraw, seed: int
) -> list[Probe]:
    """Return the probes of held-out rows; their alternative targets are drawn from `others`."""
    drawn_probes: list[Probe] = []
    siblings: dict[str, list[Rewarded]] = {}
    for row in rows:
        siblings.setdefault(row.example.cluster, []).append(row)
    for pair in siblings.values():
        for number, row in enumerate(pair):
            rng = random.Random(f"{seed}/{row.example.id}/steering")
            sibling = pair[1 - number] if len(pair) > 1 else None
            members = [Encoded(encode(row.example, dict(row.actual)), row.completion, row.example.cluster)]
            comparisons, kinds = [], []
            for kind, alternatives in _options(row, sibling, others, targets, rng):
                comparisons.append([0, *range(len(members), len(members) + len(alternatives))])
                prompts = [encode(row.example, wishes) for wishes in alternatives]
                members += [Encoded(prompt, row.completion, row.example.cluster) for prompt in prompts]
                kinds.append(kind)
            drawn_probes.append(Probe(compared(members, (0,), comparisons), kinds, row.example.cluster))
    return drawn_probes


def _options(
    row: Rewarded, sibling: Rewarded | None, others: Sequence[Rewarded], targets: TargetDraw, rng: random.Random
) -> Iterator[tuple[str, list[Wishes]]]:
    """Yield the kind of each comparison of a row, and its alternative targets."""
    own: Wishes = dict(row.actual)
    donors = [rng.choice(others).actual for _ in range(ALTERNATIVES + _TRIES)]
    drawn: list[Wishes] = [{name: actual[name] for name in own} for actual in donors if set(own) <= set(actual)]
    joint = [wishes for wishes in drawn if not targets.holds(wishes, row.actual)][:ALTERNATIVES]
    if len(joint) == ALTERNATIVES:
        yield JOINT, joint
    if sibling is not None and set(own) <= set(sibling.actual):
        wishes = {name: sibling.actual[name] for name in own}
        if not targets.holds(wishes, row.actual):
            yield SIBLING, [wishes]
    for name in own if len(own) > 1 else ():
        single: list[Wishes] = [{**own, name: wishes[name]} for wishes in drawn]
        different = [wishes for wishes in single if not targets.holds(wishes, row.actual)]
        if different:
            yield name, different[:1]


def measure(model: Any, projection: Any, collator: Collator, measured: Sequence[Probe]) -> Figures:
    """Return information and margin in nats, and the share of correct comparisons, by kind of comparison.

    Each value has a 95% interval from a bootstrap over prompts. The result is empty if no held-out row can be compared.
    """
    batches = _batches([probe.family for probe in measured])
    scores = [score for batch in batches for score in _scores(model, projection, collator(batch))]
    comparisons = [(kind, probe.cluster) for probe in measured for kind in probe.kinds]
    by_kind: dict[str, tuple[list[list[float]], list[str]]] = {}
    for (kind, cluster), score in zip(comparisons, scores, strict=True):
        kind_scores, clusters = by_kind.setdefault(kind, ([], []))
        kind_scores.append(score)
        clusters.append(cluster)
    return {kind: _figures(*of_kind) for kind, of_kind in by_kind.items()}


def _batches(families: Sequence[Family]) -> Iterator[list[Family]]:
    """Yield families in batches of at most _TOKENS tokens."""
    batch: list[Family] = []
    for family in families:
        if batch and sum(family_in_batch.width for family_in_batch in [*batch, family]) > _TOKENS:
            yield batch
            batch = []
        batch.append(family)
    if batch:
        yield batch


def _scores(model: Any, projection: Any, batch: Mapping[str, torch.Tensor]) -> list[list[float]]:
    """Return the log probabilities of the options of each comparison of a batch; the own target is first."""
    moved = {name: value.to(model.device) for name, value in batch.items()}
    with torch.inference_mode():
        losses, owners = token_losses(model, projection, moved)
        scores = -sequence_sums(losses, owners, len(moved["own"]))
    return [scores[members[members >= 0]].tolist() for members in moved["comparisons"]]


def _figures(scores: Sequence[Sequence[float]], clusters: Sequence[str]) -> dict[str, Any]:
    table = np.array(scores)
    with np.errstate(invalid="ignore"):  # infinite if training diverged; the loss reports it
        information = np.log(table.shape[1]) + table[:, 0] - np.logaddexp.reduce(table, axis=1)
    margin = table[:, 0] - table[:, 1:].max(axis=1)
    columns = {"information": information, "margin": margin, "right": (margin > 0).astype(float)}

    def means(times: Floats) -> dict[str, Floats]:
        return {name: times @ column / times.sum(axis=1) for name, column in columns.items()}

    return {"n": len(scores), "options": table.shape[1], **clustered(clusters, means, Bootstrap())}


class SteeringMonitor:
    """Measures steering information: on half of the probes during training, on all of them at the end."""

    def __init__(self, measured: Sequence[Probe], collator: Collator) -> None:
        self.measured, self.collator = measured, collator

    def __call__(self, model: Any, projection: Any, ended: bool) -> Figures:
        """Return the steering information of a model in evaluation mode, see `measure`."""
        most = len(self.measured) if ended else math.ceil(len(self.measured) / 2)
        return measure(model, projection, self.collator, self.measured[:most])
