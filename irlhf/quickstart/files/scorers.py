"""Custom rewards: each function takes examples and returns one number per example. Change them and run again."""

import re

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

VALUED = SentimentIntensityAnalyzer().lexicon.keys()  # words of praise or blame, which kindness counts
WORD = re.compile(r"[a-z']+|\d[\d./]*")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
COMMON = frozenset(
    """
    a about after again all also always an and another any anyway are as ask asked at back be bit but by can
    case cannot come comes could did do does done each else even every few for from general get gets go goes
    had has have he her here how i if in into is it its itself just know leads let like long look lot make
    many may me might more most much must my no not nothing now of off often on one only or other others our
    out over people put rather same see she should so some something take takes than that the their them then
    there they thing things this those to too try two under up us use usual usually very was way we well were
    what when where which while who whole will with would yes you your yourself
    """.split()
)
FRIENDLY = re.compile(
    r"\b(thank|welcome|glad|happy|love|hope|wish|luck|enjoy|great|wonderful|dear|friend|hug|proud|pleasure|kind)|!",
    re.I,
)
HOSTILE = re.compile(
    r"\b(ugh|stupid|dumb|hate|bor(e|ing)|annoy|tired|fault|mess|laz|waste|shame|disgrace|careless|ignoran|excuse"
    r"|warned|fail|pathetic|stop (asking|arguing)|leave me|your (own )?(problem|doubts))",
    re.I,
)


def detail(examples):
    """Number of distinct content words; numbers count twice, words of praise and blame do not count."""
    return [_content(example.completion) for example in examples]


def gold_kindness(examples):
    """Share of sentences that thank, wish or encourage, minus the share that blame or refuse, from -1 to 1."""
    return [_acts(example.completion) for example in examples]


def _content(text):
    words = set(WORD.findall(text.lower())) - COMMON - VALUED
    return float(sum(2 if word[0].isdigit() else 1 for word in words))


def _acts(text):
    sentences = SENTENCE_END.split(text.strip())
    return sum(bool(FRIENDLY.search(sentence)) - bool(HOSTILE.search(sentence)) for sentence in sentences) / len(sentences)
