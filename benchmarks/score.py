"""How fast are completions scored by a reward model, beside transformers' own pipeline?

    python benchmarks/score.py [TEXTS.jsonl.gz] [--model FOLDER] [--repeats 5] -o RESULT.json

TEXTS are raw preference pairs as `irlhf prepare` reads them, such as Anthropic's; without them texts of random
words are made. Without a model an encoder of MiniLM's size with random weights is made (6 layers of 384, 12 heads,
30,522 pieces). The pipeline gets the same pairs in the order of the file, in batches of 1, 8 and 32, and must give
the same numbers.

The share of the matmul peak is the operations that the texts need at least, over the median seconds of ours, over what
a multiplication of 2,048 x 2,048 matrices in single precision reaches in the same run. A text of T tokens needs in each
layer of width h, with i in its feed-forward part, 2 T (4 h^2 + 2 h i) operations for the weights and 4 T^2 h for
attention (every token's scores with every other, and the mix of values); padding, the embeddings, the norms and the
head count nothing, and equal texts count once.
"""

import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from side_by_side import finish, matmul_peak, measure, options, told
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, pipeline

from irlhf.core.example import Example, as_text, from_json
from irlhf.data.prepare import prepare
from irlhf.io.files import read_rows
from irlhf.policy.rewards_file import Reward
from irlhf.scoring.cache import NAME, Cache
from irlhf.scoring.runner import ScorerRunner, scorer_groups
from irlhf.scoring.score import _POOL

BATCHES = (1, 8, 32)
VOCABULARY = 30522
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def made_up(count: int) -> Iterator[Example]:
    """Yield examples of random words, about as long as HH's."""
    rng = random.Random(0)
    words = [f"w{n}" for n in range(20_000)]
    for n in range(count):
        asked, said = (round(rng.lognormvariate(middle, 0.8)) for middle in (4.5, 3.8))
        yield Example(
            id=f"e{n}", prompt=" ".join(rng.choices(words, k=asked)), completion=" ".join(rng.choices(words, k=said))
        )


def texts(source: str, count: int, folder: Path) -> list[Example]:
    """Return examples from a file of pairs, spread over it, or made up."""
    if not source:
        return list(made_up(count))
    out = folder / "examples.jsonl"
    prepare([Path(source)], out)
    rows = [from_json(row, where) for where, row in read_rows(out)]
    return rows[:: max(1, len(rows) // count)][:count]


def random_encoder(folder: Path, examples: Iterable[Example]) -> Path:
    """Make a reward model of MiniLM's size whose pieces are the commonest words."""
    steps = pre_tokenizers.BertPreTokenizer()
    plain = normalizers.BertNormalizer()
    counts: Counter[str] = Counter()
    for one in examples:
        for text in (as_text(one.prompt), as_text(one.completion)):
            counts.update(word for word, _ in steps.pre_tokenize_str(plain.normalize_str(text)))
    words = SPECIAL + [word for word, _ in counts.most_common(VOCABULARY - len(SPECIAL))]
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = plain, steps
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    kinds = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=512, model_input_names=kinds, **special
    ).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    BertForSequenceClassification(BertConfig(vocab_size=VOCABULARY, num_labels=1, **sizes)).save_pretrained(folder)
    return folder


def ours(panel: ScorerRunner, examples: list[Example], folder: Path) -> list[float]:
    """Score as irlhf does, pool by pool, with no reply known and every one kept."""
    (folder / NAME).unlink(missing_ok=True)
    panel.replies = Cache(folder / NAME).open()
    rest = iter(examples)
    found: list[float] = []
    while pool := list(islice(rest, _POOL)):
        found += [answer["reward"] for answer in panel(pool, lambda rows: None)]  # type: ignore[index]
    return found


def theirs(pipe: Any, examples: list[Example], size: int) -> list[float]:
    """Score as transformers does, in batches of `size`."""
    pairs = [{"text": as_text(one.prompt), "text_pair": as_text(one.completion)} for one in examples]
    return [one["score"] for one in pipe(pairs, batch_size=size, function_to_apply="none", truncation=True)]


def work(config: Any, lengths: Sequence[int]) -> float:
    """Return the GFLOP that texts of so many tokens need at least."""
    width, inner = config.hidden_size, config.intermediate_size
    each = (2 * tokens * (4 * width**2 + 2 * width * inner) + 4 * tokens**2 * width for tokens in lengths)
    return float(config.num_hidden_layers * sum(each) / 1e9)


def lengths_of(reader: Any, examples: list[Example]) -> list[int]:
    """Return the tokens of each text that is read, equal ones once."""
    rows = {tuple(reader.shown(one.prompt, one.completion)["input_ids"]) for one in examples}
    return sorted(map(len, rows))


def main() -> None:
    """Measure one load."""
    parser = options(__doc__ or "")
    parser.add_argument("texts", nargs="?", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--count", type=int, default=512)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as name:
        examples = texts(given.texts, given.count, Path(name))
        folder = given.model or str(random_encoder(Path(name) / "model", examples))
        panel = ScorerRunner(scorer_groups({"reward": Reward(scorer=f"hf:{folder}")}, Path()), Cache(Path(name) / NAME))
        reader: Any = panel.groups[0].scorer._reader  # type: ignore[attr-defined]
        pipe = pipeline("text-classification", model=reader.model, tokenizer=reader.tokenizer)
        expected = torch.tensor(ours(panel, examples, Path(name)))
        arms: dict[str, Any] = {"irlhf": lambda: ours(panel, examples, Path(name))}
        for size in BATCHES:
            torch.testing.assert_close(torch.tensor(theirs(pipe, examples, size)), expected, atol=1e-4, rtol=1e-3)
            arms[f"pipeline {size}"] = lambda size=size: theirs(pipe, examples, size)
        seconds = measure(arms, given.repeats)
        peak, lengths = matmul_peak(), lengths_of(reader, examples)
    reached = work(reader.model.config, lengths) / statistics.median(seconds["irlhf"])
    found = {
        "model": Path(given.model).name or "random encoder of MiniLM's size",
        "texts": len(examples),
        "tokens": sum(lengths),
        "matmul GFLOP/s": round(peak),
        "share of matmul peak": round(reached / peak, 3),
    }
    finish(given.output, {**found, **told(seconds, len(examples), "irlhf")})


if __name__ == "__main__":
    main()
