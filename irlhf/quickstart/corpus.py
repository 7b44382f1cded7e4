"""Generate short help-desk replies that differ in tone, concreteness, length and register."""

import math
import random
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "words"
TONES = ("cold", "curt", "flat", "friendly", "warm")
FLAT = TONES.index("flat")
STEP = "{step}"
CAPITAL_STEP = "{Step}"
BARE = f"{CAPITAL_STEP}."  # the only phrase that may be repeated in a reply
CHOICE = re.compile(r"\[([^\]]+)\]")  # "[2|3] drops" becomes "2 drops" or "3 drops"

TRADE_OFF = -0.35  # correlation of a reply's tone with its concreteness
LENGTHS = {1: 1, 2: 4, 3: 4, 4: 2}  # number of sentences: weight
FORMAL = 0.3  # share of formal replies
COLOURED = 0.7  # share of steps in the tone of the reply; the others are flat
DRIFT = 0.4  # standard deviation of the tone of a sentence, in tones
EXACT = (0.2, 0.9)  # share of steps with amounts, times or tools in the vaguest and in the most concrete reply
ANYWHERE = 0.5  # share of steps for any topic; the others are for the family of the topic


@dataclass(frozen=True)
class Topic:
    """The questions about one subject, and the steps that solve them."""

    name: str
    split: str  # "train", "validation" or "test"
    asks: tuple[str, ...]  # "a flat tyre"
    steps: tuple[str, ...]  # with amounts, times, tools
    simple: tuple[str, ...]  # two to five plain words


@dataclass(frozen=True)
class Mood:
    """The properties of a reply."""

    tone: float  # from 0 (cold) to 4 (warm), an index of TONES
    concrete: float  # from 0 (vague) to 1 (concrete)
    length: int  # number of sentences
    register: str  # "plain" or "formal"


def _load(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / name).read_text(encoding="utf-8"))


def _topics() -> Iterator[Topic]:
    for family in _load("topics.toml").values():
        for name, topic in family["topics"].items():
            yield Topic(name, topic["split"], tuple(topic["asks"]), tuple(family["steps"]), tuple(family["simple"]))


TOPICS = {topic.name: topic for topic in _topics()}
SAYINGS: dict[str, dict[str, dict[str, list[str]]]] = _load("sentences.toml")  # role, tone, register
GENERAL: dict[str, list[str]] = _load("general.toml")


def generate(rows: int, seed: int) -> Iterator[dict[str, str]]:
    """Yield dialogue rows; prompts are repeated with different replies."""
    names = sorted(TOPICS)
    for number in range(rows):
        rng = random.Random(f"{seed}/{number}")
        topic = TOPICS[rng.choice(names)]
        prompt = rng.choice(GENERAL["prompts"]).replace("{ask}", rng.choice(topic.asks))
        prompt = _capital(prompt)
        yield {
            "id": f"{topic.name}-{number}",
            "prompt": prompt,
            "completion": reply(topic, _mood(rng), rng),
            "group": prompt,
            "topic": topic.name,
        }


def reply(topic: Topic, mood: Mood, rng: random.Random) -> str:
    """Return one reply, whose sentences are steps and remarks."""
    steps = math.floor(mood.concrete * mood.length + rng.random())
    clauses = _clauses(topic, steps, mood.concrete, rng)
    sentences: list[str] = []
    sayings: list[str] = []
    for role in _roles(steps, mood.length - steps, rng):
        saying = _saying(role, mood, sayings, rng)
        sayings.append(saying)
        sentences.append(_fill(saying, clauses))
    return " ".join(sentences)


def _roles(steps: int, remarks: int, rng: random.Random) -> list[str]:
    """Return the roles of the sentences: an optional opening, steps and remarks, an optional closing."""
    ends = ["open", "close"] if steps + remarks > 1 else []
    drawn = rng.sample(ends + ["talk"] * remarks, remarks)
    middle = ["frame"] * steps + ["talk"] * drawn.count("talk")
    rng.shuffle(middle)
    return ["open"] * drawn.count("open") + middle + ["close"] * drawn.count("close")


def _mood(rng: random.Random) -> Mood:
    tone = rng.gauss(0, 1)
    concrete = TRADE_OFF * tone + math.sqrt(1 - TRADE_OFF**2) * rng.gauss(0, 1)
    length = rng.choices(list(LENGTHS), list(LENGTHS.values()))[0]
    register = "formal" if rng.random() < FORMAL else "plain"
    return Mood(_share_below(tone) * (len(TONES) - 1), _share_below(concrete), length, register)


def _share_below(z: float) -> float:
    """Return the standard normal distribution function, which maps a normal draw to a uniform one in [0, 1]."""
    return (1 + math.erf(z / math.sqrt(2))) / 2


def _saying(role: str, mood: Mood, used: Sequence[str], rng: random.Random) -> str:
    tone = min(max(round(rng.gauss(mood.tone, DRIFT)), 0), len(TONES) - 1)
    if role == "frame" and rng.random() > COLOURED:
        tone = FLAT
    sayings = SAYINGS[role][TONES[tone]][mood.register]
    return rng.choice([saying for saying in sayings if saying == BARE or saying not in used] or [BARE])


def _clauses(topic: Topic, count: int, concrete: float, rng: random.Random) -> Iterator[str]:
    """Yield distinct steps; more of them have amounts, times and tools if `concrete` is higher."""
    exact = list(topic.steps), list(GENERAL["steps"])
    simple = list(topic.simple), list(GENERAL["simple"])
    low, high = EXACT
    for _ in range(count):
        pools = exact if rng.random() < low + (high - low) * concrete else simple
        pool = pools[rng.random() < ANYWHERE]
        clause = pool.pop(rng.randrange(len(pool)))
        yield CHOICE.sub(lambda match: rng.choice(match[1].split("|")), clause)


def _fill(saying: str, clauses: Iterator[str]) -> str:
    if STEP not in saying and CAPITAL_STEP not in saying:
        return saying
    clause = next(clauses)
    return saying.replace(STEP, clause).replace(CAPITAL_STEP, _capital(clause))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
