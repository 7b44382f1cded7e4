"""Provenance, licence, citation and limits of well-known data sets, for data cards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SourceInfo:
    """The provenance of the data of one format."""

    name: str
    home: str  # a URL
    licence: str  # identifier of the hub
    terms: str  # full text, which copies must include
    language: str
    tags: Sequence[str]
    notice: str
    limits: Sequence[str]
    citation: str  # BibTeX
    fields: Mapping[str, str] = field(default_factory=dict)  # meaning of the columns of the data set
    back: str = ""  # Python code that restores the raw text of a row


_HOME = "https://github.com/anthropics/hh-rlhf"
_MIT = """MIT License

Copyright (c) 2022 Anthropic

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE."""
_NOTICE = (
    "The data contain content that may be offensive or upsetting, including discriminatory language and discussions of"
    " abuse, violence, self-harm and exploitation. Use them in accordance with your own risk tolerance. They are"
    " intended for research, especially research that makes models less harmful. The views in them are not those of"
    " Anthropic, of its employees or of the publishers of this copy."
)
_TAGS = ("human-feedback", "not-for-all-audiences")
_BACK = """def transcript(row):
    speaker = {"user": "Human", "assistant": "Assistant"}
    turns = [*row["prompt"], {"role": "assistant", "content": row["completion"]}]
    return "".join(f"\\n\\n{speaker[turn['role']]}: {turn['content']}" for turn in turns)"""
_WHITESPACE = "White space at the ends of a turn is removed. No other character of a turn is changed."

SOURCES: Mapping[str, SourceInfo] = {
    "hh": SourceInfo(
        name="Anthropic's human preference data about helpfulness and harmlessness",
        home=_HOME,
        licence="mit",
        terms=_MIT,
        language="en",
        tags=_TAGS,
        notice=_NOTICE,
        limits=(
            "The data were collected to train preference and reward models. Do not train a dialogue agent on them"
            " as they are: half of them are `rejected`, and `chosen` is only the better of two.",
            "A label is the choice of one person between two answers.",
            _WHITESPACE,
        ),
        citation="""@misc{bai2022training,
  title = {Training a Helpful and Harmless Assistant with Reinforcement Learning from Human Feedback},
  author = {Yuntao Bai and Andy Jones and Kamal Ndousse and Amanda Askell and others},
  year = {2022}, eprint = {2204.05862}, archivePrefix = {arXiv}, primaryClass = {cs.CL}
}""",
        back=_BACK,
    ),
    "red-team": SourceInfo(
        name="Anthropic's human-generated red-teaming data",
        home=_HOME,
        licence="mit",
        terms=_MIT,
        language="en",
        tags=_TAGS,
        notice=_NOTICE,
        limits=(
            "People wrote them to elicit harmful behaviour. A dialogue agent trained on them may become harmful.",
            _WHITESPACE,
        ),
        citation="""@misc{ganguli2022red,
  title = {Red Teaming Language Models to Reduce Harms: Methods, Scaling Behaviors, and Lessons Learned},
  author = {Deep Ganguli and Liane Lovitt and Jackson Kernion and Amanda Askell and others},
  year = {2022}, eprint = {2209.07858}, archivePrefix = {arXiv}, primaryClass = {cs.CL}
}""",
        fields={
            "min_harmlessness_score_transcript": "preference model score of the assistant; lower is more harmful",
            "num_params": "number of parameters of the assistant's model",
            "model_type": "kind of model of the assistant",
            "rating": "the person's rating of how successful the attack was; higher is more successful",
            "task_description": "the person's description of the attack",
            "task_description_harmlessness_score": "preference model score of the description; lower is more harmful",
            "red_team_member_id": "arbitrary id of the person, who may have written several transcripts",
            "is_upworker": "true if the person came from Upwork, false if from MTurk",
            "tags": "up to six tags by other people, for a sample of the transcripts",
        },
        back=_BACK,
    ),
}
