"""What is to be said of well-known data when it is handed on: whose it is, its licence, whom to cite, what to mind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SourceInfo:
    """Where the data of one format come from."""

    name: str
    home: str  # a URL
    licence: str  # as a hub spells it
    terms: str  # its text, which copies must carry
    language: str
    tags: Sequence[str]
    notice: str
    limits: Sequence[str]
    citation: str  # BibTeX
    fields: Mapping[str, str] = field(default_factory=dict)  # what their own columns mean
    back: str = ""  # Python that gives the raw text of a row


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
    "The data hold content that may be offensive or upsetting: discriminatory language, and talk of abuse, violence,"
    " self-harm, exploitation and more. Look at them only as far as you can bear. They are meant for research, above"
    " all for making models less harmful. The views in them are not those of Anthropic or of its employees, nor of"
    " whoever hands them on."
)
_TAGS = ("human-feedback", "not-for-all-audiences")
_BACK = """def transcript(row):
    speaker = {"user": "Human", "assistant": "Assistant"}
    turns = [*row["prompt"], {"role": "assistant", "content": row["completion"]}]
    return "".join(f"\\n\\n{speaker[turn['role']]}: {turn['content']}" for turn in turns)"""
_WHITESPACE = "White space at the two ends of a turn is not kept. No other character of a turn is changed."

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
            "They were gathered to train preference and reward models. A dialogue agent that is trained on them as they"
            " are learns to do harm: `rejected` is half of them, and `chosen` is merely the better of two.",
            "A label is one person's choice between two answers.",
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
            "People wrote them to make a model do harm, and a dialogue agent that is trained on them learns to.",
            _WHITESPACE,
        ),
        citation="""@misc{ganguli2022red,
  title = {Red Teaming Language Models to Reduce Harms: Methods, Scaling Behaviors, and Lessons Learned},
  author = {Deep Ganguli and Liane Lovitt and Jackson Kernion and Amanda Askell and others},
  year = {2022}, eprint = {2209.07858}, archivePrefix = {arXiv}, primaryClass = {cs.CL}
}""",
        fields={
            "min_harmlessness_score_transcript": "a preference model's number for the assistant; lower is more harmful",
            "num_params": "parameters of the assistant's model",
            "model_type": "what kind of model the assistant was",
            "rating": "how far the person thought to have broken the assistant; higher is farther",
            "task_description": "how the person set about it, in own words",
            "task_description_harmlessness_score": "a preference model's number for it; lower is more harmful",
            "red_team_member_id": "an arbitrary number of the person, who may have written several",
            "is_upworker": "true where the person came from Upwork, false where from MTurk",
            "tags": "up to six tags by others, for a sample of the transcripts",
        },
        back=_BACK,
    ),
}
