"""Target against actual reward after each round."""

from matplotlib.figure import Figure

from irlhf.plotting import style, target_actual
from irlhf.plotting.inputs import Rounds

INPUT = "rounds"
CAPTION = (
    "Target against actual reward after each round of the first run: mean of each level of the target with its 95%"
    " interval. Later rounds are darker; the dotted line is the best constant."
)

_LINES = 5  # most rounds shown, evenly spaced


def draw(rounds: Rounds) -> Figure | None:
    """Return one figure, a panel for each reward, a line for each round of the first run that has an evaluation."""
    numbers = list(rounds.evaluations)
    shown = [numbers[i] for i in style.spread(len(numbers), _LINES)]
    drawn: dict[str, list[style.Arm]] = {}
    for number, colour, marker in zip(shown, style.steps(len(shown)), style.MARKERS, strict=False):
        look = style.Look(f"round {number}", colour, marker, style.SOLID, steered=True)
        policies = rounds.evaluations[number]["policies"].values()
        curves = {name: metrics for policy in policies for name, metrics in policy["rewards"].items()}
        for reward, metrics in curves.items():
            if metrics["curve"]:
                drawn.setdefault(reward, []).append((look, metrics))
    if not drawn:
        return None
    figure = target_actual.figure(drawn, clouds=0)
    if len(shown) < len(numbers):
        figure.suptitle(f"{len(shown)} of {len(numbers)} rounds", fontsize=12)
    return figure
