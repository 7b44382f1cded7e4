"""report.html in a real browser: no network requests, no foreign scripts, and the expected content."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from evaluations import Shape, evaluation, evaluation_of_pairs, write_evaluation, write_samples
from helpers import Bench, call, read, write
from playwright.sync_api import Browser, Page, sync_playwright

from irlhf.policy.policy_file import read_policy

FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
MORE_FLAGS = "--disable-component-update --disable-sync"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
STEP = 12  # samples that the page shows at first
SHAPE = Shape(prompts=10)
HOSTILE = [
    "<script>window.hacked = 1; alert(1)</script>",
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "<svg onload=window.hacked=1>",
    "--><!--<script>window.hacked = 1",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07",
    "one\u2028two\u2029three",
    "\u202ereversed\u2066",
    "javascript:window.hacked=1",
    "<a href='javascript:window.hacked=1'>here</a> <b onclick=window.hacked=1>x</b>",
    "{{ 7 * 7 }} {% raw %}",
    "__proto__",
]

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium, chromium-browser or google-chrome is installed")


@dataclass
class Seen:
    """An open page, and what it did."""

    page: Page
    trouble: list[str] = field(default_factory=list)  # errors, dialogs
    requests: list[str] = field(default_factory=list)

    def shown(self, name: str) -> list[str]:
        """Return the texts of a part of the samples that are shown."""
        return self.page.locator(f"#list article .{name}").all_inner_texts()

    def figures(self, reward: str, part: str) -> list[float]:
        """Return the numbers of a reward beside the samples that are shown."""
        texts = self.page.locator("#list dl > div", has_text=reward).locator("dd", has_text=part).all_inner_texts()
        return [float(text.split()[1].replace("\u2212", "-")) for text in texts]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=f"{FLAGS} {MORE_FLAGS}".split())
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def opened(browser: Browser) -> Iterator[Seen]:
    """One page for all tests."""
    page = browser.new_page()
    watched = Seen(page)
    page.on("console", lambda message: watched.trouble.append(message.text))
    page.on("pageerror", lambda error: watched.trouble.append(str(error)))
    page.on("request", lambda request: watched.requests.append(request.url))
    page.on("dialog", lambda dialog: (watched.trouble.append("a dialog"), dialog.dismiss()))
    yield watched
    page.close()


@pytest.fixture
def seen(opened: Seen) -> Seen:
    """The page, empty and of its usual size."""
    opened.page.goto("about:blank")
    opened.page.set_viewport_size({"width": 1280, "height": 720})
    opened.trouble.clear()
    opened.requests.clear()
    return opened


def show(seen: Seen, *sources: object) -> None:
    """Make the page with the program and open it."""
    outcome = call("plot", *sources, "-o", "plots", "-q")
    assert outcome.code == 0, outcome.err
    seen.page.goto(Path("plots/report.html").resolve().as_uri())


def assert_calm(seen: Seen) -> None:
    """The page did nothing but show itself."""
    assert seen.trouble == []
    own = Path("plots/report.html").resolve().as_uri()
    assert {url for url in seen.requests if not url.startswith("data:")} == {own}
    assert seen.page.evaluate("window.hacked === undefined")


@pytest.mark.slow
def test_the_page_sends_no_requests(seen: Seen) -> None:
    show(seen, write_evaluation(SHAPE), write_samples(SHAPE))
    seen.page.wait_for_load_state("networkidle")
    assert_calm(seen)


@pytest.mark.slow
def test_figures_pictures_samples_and_provenance_are_shown(seen: Seen) -> None:
    show(seen, write_evaluation(SHAPE), write_samples(SHAPE))
    text = seen.page.inner_text("body")
    for heading in ("Tracking", "Gold", "Cross-talk", "Mixes", "Fronts", "on the same prompts", "Costs"):
        assert heading in text
    assert "0f" * 32 in text
    widths = seen.page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 8
    assert all(widths)
    assert seen.page.locator("figcaption").count() == 8


@pytest.mark.slow
def test_hostile_samples_stay_text(seen: Seen) -> None:
    rows = read(write_samples(SHAPE))[: len(HOSTILE)]
    for row, text in zip(rows, HOSTILE, strict=True):
        row |= {"prompt": text, "completion": text, "asked": {text: 0.5}, "rewards": {text: 1.0}, "target": {text: "1"}}
    write(Path("samples.jsonl"), rows)
    show(seen, "samples.jsonl")
    assert_calm(seen)
    marked = [text.translate(dict.fromkeys((7, 27, 8238, 8294), "\u2426")) for text in HOSTILE]
    assert seen.page.locator("#list .completion").evaluate_all("all => all.map(one => one.textContent)") == marked
    assert seen.page.locator("#list :is(script, img, svg, a, b)").count() == 0
    for name in ("policy", "reward", "order"):
        for value in seen.page.locator(f"#{name} option").evaluate_all("all => all.map(one => one.value)"):
            seen.page.select_option(f"#{name}", value)
    assert_calm(seen)


@pytest.mark.parametrize("first", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4, 6, 8, 10))])
def test_hostile_names_stay_text(seen: Seen, first: int) -> None:
    one, two = HOSTILE[first : first + 2]
    policies = [(two, ""), (one, "plain"), ("half \ud800", "")]
    found = evaluation(Shape(rewards=[one, two], policies=policies, weightings=[(1, 1)], gold=False, prompts=4))
    found["provenance"] |= {"irlhf": one, "inputs": [{"path": one, "sha256": two, "rows": 1}]}
    found["comparisons"][0]["figures"][0] |= {"figure": one, "reward": two}
    Path("eval.json").write_text(json.dumps(found))
    show(seen, "eval.json")
    assert_calm(seen)
    assert seen.page.locator("script").count() == 1


@pytest.mark.parametrize("first", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 6, 9))])
def test_hostile_names_of_preference_pairs_stay_text(seen: Seen, first: int) -> None:
    names = HOSTILE[first : first + 3]
    Path("eval.json").write_text(json.dumps(evaluation_of_pairs(names, gold=names)))
    show(seen, "eval.json")
    assert_calm(seen)
    assert seen.page.locator("h1").inner_text() == "Do the rewards agree with the preferences?"
    assert seen.page.locator("table").first.locator("tbody tr").count() == 6


@pytest.mark.slow
def test_a_hostile_file_name_stays_text(seen: Seen) -> None:
    show(seen, write_samples(SHAPE, "<img src=x onerror=alert(1)>.jsonl"))
    assert_calm(seen)


@pytest.mark.slow
def test_injected_scripts_do_not_run(seen: Seen) -> None:
    show(seen, write_samples(SHAPE))
    add = "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"window.hacked = 1\">')"
    seen.page.evaluate(add)
    seen.page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'hacked = 1'}))")
    seen.page.wait_for_timeout(100)
    assert seen.page.evaluate("window.hacked === undefined")


@pytest.mark.slow
def test_more_shows_more(seen: Seen) -> None:
    show(seen, write_samples(SHAPE))
    for clicks in range(1, 6):
        assert len(seen.shown("prompt")) == min(STEP * clicks, 60)
        if clicks < 5:
            seen.page.click("#more")
    assert seen.page.locator("#more").is_hidden()
    assert seen.page.inner_text("#count") == "60 of 60"


@pytest.mark.slow
def test_samples_are_searched_by_text(seen: Seen) -> None:
    show(seen, write_samples(SHAPE))
    seen.page.fill("#find", "LAMP 7")
    assert set(seen.shown("prompt")) == {"How do I mend lamp 7?"}
    assert len(seen.shown("prompt")) == 6
    seen.page.fill("#find", "nowhere")
    assert seen.page.inner_text("#count") == "no matching sample"


@pytest.mark.slow
def test_samples_are_filtered_by_policy(seen: Seen) -> None:
    show(seen, write_evaluation(SHAPE), write_samples(SHAPE))
    assert seen.page.locator("#policy option").all_inner_texts() == ["all policies", "policy", "plain", "top"]
    seen.page.select_option("#policy", "plain")
    assert set(seen.shown("who")) == {"plain"}
    assert seen.page.inner_text("#count") == "12 of 20"


@pytest.mark.slow
def test_samples_are_filtered_by_target(seen: Seen) -> None:
    rows = read(write_samples(SHAPE))
    show(seen, "samples.jsonl")
    assert seen.page.locator("#low").is_disabled()
    seen.page.select_option("#reward", "detail")
    seen.page.fill("#low", "0.4")
    seen.page.fill("#high", "0.7")
    fitting = [row for row in rows if 0.4 <= row["asked"]["detail"] <= 0.7]
    assert seen.page.inner_text("#count").endswith(f"of {len(fitting)}")
    assert all(0.4 <= asked <= 0.7 for asked in seen.figures("detail", "target"))


@pytest.mark.slow
@pytest.mark.parametrize(("part", "key"), [("target", "asked"), ("raw", "rewards"), ("gold", "gold")])
def test_samples_are_sorted(seen: Seen, part: str, key: str) -> None:
    numbers = sorted(row[key]["kindness"] for row in read(write_samples(SHAPE)))
    show(seen, "samples.jsonl")
    seen.page.select_option("#order", label=f"highest kindness {part}")
    assert seen.figures("kindness", part) == pytest.approx(numbers[::-1][:STEP], abs=0.006)
    seen.page.select_option("#order", label=f"lowest kindness {part}")
    assert seen.figures("kindness", part) == pytest.approx(numbers[:STEP], abs=0.006)


@pytest.mark.slow
def test_a_mix_is_named(seen: Seen) -> None:
    show(seen, write_samples(SHAPE, target={"kindness": "2*", "detail": "1*"}))
    assert seen.shown("who")[0].endswith("maximising 2 × kindness + detail")


@pytest.mark.slow
def test_kept_samples_have_the_name_of_their_policy(seen: Seen) -> None:
    found = evaluation(SHAPE)
    first = next(iter(found["policies"]))
    found["policies"][f"{first}, best of 4"] = {**found["policies"][first], "name": "policy, best of 4"}
    Path("eval.json").write_text(json.dumps(found))
    write_samples(Shape(policies=[("policy", "")], prompts=4), candidates=4, kept="best")
    show(seen, "eval.json", "samples.jsonl")
    assert set(seen.shown("who")) == {"policy, best of 4"}


@pytest.mark.slow
def test_long_texts_fold(seen: Seen) -> None:
    show(seen, write_samples(SHAPE, prompt="word " * 400))
    first = seen.page.locator("#list article").first
    assert first.locator("details").get_attribute("open") is None
    first.locator("summary").click()
    assert first.locator("div.prompt").inner_text().count("word") == 400


@pytest.mark.slow
def test_a_picture_grows_when_it_is_clicked(seen: Seen) -> None:
    show(seen, write_evaluation(SHAPE))
    before = seen.page.locator("figure").first.bounding_box()
    seen.page.click("figure >> nth=0 >> button")
    after = seen.page.locator("figure").first.bounding_box()
    assert before
    assert after
    assert after["width"] > 1.5 * before["width"]


@pytest.mark.slow
def test_a_phone_scrolls_tables_and_not_the_page(seen: Seen) -> None:
    seen.page.set_viewport_size({"width": 390, "height": 800})
    show(seen, write_evaluation(Shape(rewards=["a" * 80, "b"], prompts=6)), write_samples(SHAPE, completion="x" * 300))
    assert seen.page.evaluate("document.documentElement.scrollWidth") == 390
    assert_calm(seen)


def test_the_verdict_the_plot_and_samples_stand_above_the_tables() -> None:
    write_evaluation()
    write_samples()
    assert call("plot", "eval.json", "samples.jsonl").code == 0
    text = Path("plots/report.html").read_text()
    order = [text.index(part) for part in ("follows its target", 'alt="target-actual', "A few samples", "<table>")]
    assert order == sorted(order)
    assert text[: order[-1]].count("<article>") == 6


def test_samples_are_shown_on_the_scale_of_their_target(bench: Bench) -> None:
    policy = read_policy(bench.policy)
    row = {"prompt": "p", "completion": "c", "policy": policy.digest, "target": {"short": "0.5"}}
    rows = [{**row, "id": f"s{i}", "asked": {"short": 0.5}, "rewards": {"short": i + 5}} for i in range(3)]
    write(Path("samples.jsonl"), rows)
    Path("policy").symlink_to(bench.policy)
    assert call("plot", "samples.jsonl").code == 0
    (_, _, after) = Path("plots/report.html").read_text().partition('id="samples">')
    shown = json.loads(after.partition("</script>")[0])
    scale = policy.reward("short").scale
    assert [sample["actual"]["short"] for sample in shown] == [scale(i + 5) for i in range(3)]
    assert [sample["raw"]["short"] for sample in shown] == [5, 6, 7]


@pytest.mark.slow  # a page of its own
def test_few_prompts_are_named_in_the_report() -> None:
    write_evaluation(Shape(prompts=10))
    assert call("plot", "eval.json").code == 0
    text = Path("plots/report.html").read_text()
    assert (
        "Few prompts: intervals from fewer than 50 prompts are too narrow: policy (10), plain (10), top (10)." in text
    )
