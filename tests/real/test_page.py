"""The HTML page in a real browser: filters, episodes, training steps, links, hostile texts, size."""

import importlib.util
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sandcli.episodes import Episode
from sandcli.files import write_atomic
from sandcli.records import Candidate, Critique, Draw, Rollout, Sample, Step, Task, Thought, Trajectory
from sandcli.report.page import Page, RunData, TrainingTrajectory, page_of
from sandcli.report.parts import Figure, Grid
from tests.helpers import make_run, perform, sand

DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        DRIVER is None or shutil.which("chromium") is None or importlib.util.find_spec("selenium") is None,
        reason="needs chromium, chromedriver and selenium",
    ),
]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1200,1000"
)
HOSTILE = "</script><script>document.title='owned'</script> <img src=x onerror=\"document.title='owned'\"> & \u202etxt"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="20"><text y="15">Figure</text></svg>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        yield driver
        driver.quit()


def step(n: int, deliberated: bool = False) -> Step:
    thought = "My options: (1) look; (2) go. So I will go." if deliberated else f"thought {n}"
    return Step(thought=thought, action=f"go {n}", observation=f"room {n} " * 20, score=n / 10, deliberated=deliberated)


def episode(n: int, model: str = "sft") -> Episode:
    return Episode(
        split="seen" if n % 2 else "unseen",
        task=Task(name="boil" if n % 3 else "melt", variation=n),
        model=model,
        instruction=HOSTILE if n == 3 else f"Do task {n}.",
        steps=[step(k, deliberated=n % 5 == 0 and k == 1) for k in range(4)],
        reward=(n % 11) / 10,
        success=n % 11 == 10,
        end="done",
        deliberated=int(n % 5 == 0),
        tokens=100 + n,
    )


def training_trajectory() -> TrainingTrajectory:
    expert = Trajectory(
        id="boil_1",
        env="toy",
        task=Task(name="boil", variation=1),
        instruction=HOSTILE,
        steps=[step(0), step(1)],
        reward=1.0,
        success=True,
        source="gold",
    )
    trained = replace(expert, steps=[step(0), step(1, True)])
    sample = Sample(
        id="boil_1",
        step=1,
        expert_action="go 1",
        samples=[Draw(thought="t", action="fly", tokens=3)],
        drawn=2,
        unparsable=1,
        candidates=[Candidate(action="go 1", count=0), Candidate(action="fly", count=1)],
        deliberate=True,
    )
    rollouts = [
        Rollout(
            id="boil_1",
            step=1,
            candidate=number,
            action=action,
            thought="",
            expert=number == 0,
            count=1,
            steps=[step(7)],
            reward=1.0 - number,
            success=number == 0,
            end="done",
            tokens=5,
        )
        for number, action in enumerate(("go 1", "fly"))
    ]
    critique = Critique(id="boil_1", step=1, candidate=1, action="fly", reward=0.0, critique="Nobody flies.", tokens=2)
    thought = Thought(
        id="boil_1", step=1, thought="My options: all.", attempts=2, rejected=["repeats itself"], tokens=9
    )
    return TrainingTrajectory(expert, trained, [sample], rollouts, [critique], [thought])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "out.html"
    grid = Grid("table2", "Table 2 <&>", ["agent", "seen"], [["SFT", "79.1 (74.7-83.3)"]], ["A note."])
    figure = Figure("figure3", "Figure 3", "A caption.", SVG, b"")
    runs = [
        RunData("it1", {"sft": "SFT"}, (episode(n) for n in range(120)), iter([training_trajectory()])),
        RunData("it2", {"model": "SAND, iteration 2"}, (episode(n, "model") for n in range(30)), iter(())),
    ]
    write_atomic(out, page_of(Page("Report", [grid], [figure], ["it1 and it2 differ"]), runs))
    return out.as_uri()


def at(browser: Any, url: str) -> None:
    browser.get("about:blank")
    browser.get(url)


def seen(browser: Any, css: str) -> list[str]:
    """The texts of the visible elements."""
    return [element.text for element in browser.find_elements("css selector", css) if element.is_displayed()]


def until(browser: Any, holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, browser.find_element("css selector", "body").text[:2000]
        time.sleep(0.02)


def choose(browser: Any, label: str, value: Any) -> None:
    """Set the filter with this label as a user would."""
    control = next(e for e in browser.find_elements("css selector", ".filters label") if e.text.startswith(label))
    inner = control.find_element("css selector", "input, select")
    if inner.get_attribute("type") == "checkbox":
        inner.click()
    else:
        inner.send_keys(value)


def test_the_front_page_shows_tables_figures_and_warnings(browser: Any, page: str) -> None:
    at(browser, page)
    assert seen(browser, ".warnings li") == ["it1 and it2 differ"]
    assert seen(browser, ".grid h3") == ["Table 2 <&>"]
    assert seen(browser, ".grid tbody td") == ["SFT", "79.1 (74.7-83.3)"]
    assert browser.execute_script("return document.querySelector('figure img').naturalWidth") == 60


def test_filters_apply_immediately_and_combine(browser: Any, page: str) -> None:
    at(browser, f"{page}#episodes")
    until(browser, lambda: seen(browser, "#count") == ["150 of 150"])
    choose(browser, "run", "it1")
    until(browser, lambda: seen(browser, "#count") == ["120 of 150"])
    choose(browser, "deliberated", True)
    until(browser, lambda: seen(browser, "#count") == ["24 of 150"])
    choose(browser, "reward from", "0.9")
    wanted = [n for n in range(120) if n % 5 == 0 and (n % 11) / 10 >= 0.9]
    until(browser, lambda: seen(browser, "#count") == [f"{len(wanted)} of 150"])
    assert seen(browser, "tbody td:first-child") == [f"{'boil' if n % 3 else 'melt'}_{n}" for n in wanted]


def test_columns_sort_both_ways(browser: Any, page: str) -> None:
    at(browser, f"{page}#episodes")
    until(browser, lambda: bool(seen(browser, "th button")))
    for first in ("100", "219"):
        next(b for b in browser.find_elements("css selector", "th button") if b.text.startswith("tokens")).click()
        until(browser, lambda first=first: seen(browser, "tbody tr:first-child td:nth-child(8)") == [first])  # type: ignore[misc]


def test_an_episode_can_be_read_with_the_keyboard(browser: Any, page: str) -> None:
    at(browser, f"{page}#episode/60")
    until(browser, lambda: seen(browser, "h2") == ["melt_60"])
    assert len(seen(browser, ".step")) == 4
    assert [text.splitlines()[1] for text in seen(browser, ".step.deliberated")] == [
        "Thought: My options: (1) look; (2) go. So I will go."
    ]
    body = browser.find_element("css selector", "body")
    body.send_keys("jj")
    assert "step 1" in browser.switch_to.active_element.text
    body.send_keys("n")
    until(browser, lambda: seen(browser, "h2") == ["boil_61"])
    browser.back()
    until(browser, lambda: seen(browser, "h2") == ["melt_60"])


def test_a_training_step_shows_how_its_thought_was_made(browser: Any, page: str) -> None:
    at(browser, f"{page}#training/0/step/1")
    until(browser, lambda: "Step 1" in seen(browser, "h3"))
    assert "Candidates from 2 samples, 1 unparsable" in seen(browser, "h3")
    assert [text.partition(":")[0] for text in seen(browser, ".rollout summary")] == ["expert", "candidate 1"]
    browser.find_elements("css selector", ".rollout summary")[1].click()
    until(browser, lambda: any("Critique: Nobody flies." in text for text in seen(browser, ".rollout")))
    assert "rejected: repeats itself" in seen(browser, "#thought p")
    assert seen(browser, "#thought .step") == ["My options: all."]
    body = browser.find_element("css selector", "body")
    body.send_keys("jjj")  # past closed sections
    assert browser.switch_to.active_element.is_displayed() and browser.switch_to.active_element.tag_name != "body"


@pytest.mark.parametrize("step", ["99", "none"])
def test_a_link_to_a_missing_step_shows_the_trajectory(browser: Any, page: str, step: str) -> None:
    at(browser, f"{page}#training/0/step/{step}")
    until(browser, lambda: bool(seen(browser, "h2")))
    assert seen(browser, "h2") and not seen(browser, "h3")


def test_steps_after_a_switch_show_nothing_of_the_experts_path(browser: Any, tmp_path: Path) -> None:
    data = training_trajectory()
    expert = replace(data.expert, steps=[step(0), step(1), step(2)])
    trained = replace(data.expert, steps=[step(0), step(7, True), step(8)])
    late = replace(data.samples[0], step=2)
    switched = replace(data, expert=expert, trained=trained, samples=[*data.samples, late])
    out = tmp_path / "out.html"
    write_atomic(out, page_of(Page("Report", [], [], []), [RunData("it1", {}, iter(()), iter([switched]))]))
    at(browser, f"{out.as_uri()}#training/0/step/2")
    until(browser, lambda: "Step 2" in seen(browser, "h3"))
    assert seen(browser, "h3") == ["Step 2", "Trained on"]
    assert sum("flagged" in row for row in seen(browser, "tbody tr")) == 1
    assert seen(browser, "#replaced summary") == ["the expert's original steps from step 1 on"]
    at(browser, f"{out.as_uri()}#training/0/step/1")
    until(browser, lambda: "Step 1" in seen(browser, "h3"))
    assert "Original" in seen(browser, "h3") and "Candidates from 2 samples, 1 unparsable" in seen(browser, "h3")


def test_a_slow_page_does_not_replace_a_newer_one(browser: Any, page: str) -> None:
    at(browser, f"{page}#episode/1")
    until(browser, lambda: bool(seen(browser, ".step")))
    browser.execute_script(
        "const quick = record;"
        "record = async (...a) => { await new Promise((r) => setTimeout(r, 500)); return quick(...a); };"
        "location.hash = '#episode/2'; setTimeout(() => { location.hash = '#episodes'; }, 100);"
    )
    title = "return document.querySelector('#view h2').textContent"
    until(browser, lambda: browser.execute_script(title) == "Evaluated episodes")
    time.sleep(1)
    assert browser.execute_script(title) == "Evaluated episodes"


def test_texts_of_models_and_worlds_are_never_html(browser: Any, page: str) -> None:
    for place in ("episode/3", "training/0", "training/0/step/1", "training"):
        at(browser, f"{page}#{place}")
        until(browser, lambda: bool(seen(browser, "h2")))
        assert browser.title == "Report"
    at(browser, f"{page}#episode/3")
    until(browser, lambda: "</script><script>" in "".join(seen(browser, ".verbatim")))


def test_the_page_makes_no_requests_and_logs_no_errors(browser: Any, page: str) -> None:
    at(browser, f"{page}#episode/1")
    until(browser, lambda: bool(seen(browser, ".step")))
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_ten_thousand_episodes_are_usable(browser: Any, tmp_path: Path) -> None:
    out = tmp_path / "many.html"
    long = "You see a chair, a table and number {n}. " * 100
    many = (replace(episode(n), instruction=long.format(n=n)) for n in range(10_000))
    write_atomic(out, page_of(Page("Report", [], [], []), [RunData("it1", {}, many, iter(()))]))
    assert out.stat().st_size < 20 * 2**20
    at(browser, f"{out.as_uri()}#episodes")
    until(browser, lambda: seen(browser, "#count") == ["10,000 of 10,000"], seconds=60)
    assert len(seen(browser, "tbody tr")) == 50
    choose(browser, "task contains", "boil_9998")
    until(browser, lambda: seen(browser, "#count") == ["1 of 10,000"])
    browser.find_element("css selector", "tbody a").click()
    until(browser, lambda: any("number 9998" in text for text in seen(browser, ".verbatim")))


def test_the_report_of_a_run_is_written_as_a_page(browser: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for stage in ("collect", "sample", "rollout", "critique", "synthesize"):
        perform(stage, run, limit=3)
    perform("eval", run, limit=2, eval__models=["base"])
    done = sand("report", run, "--html", tmp_path / "out.html")
    assert done.returncode == 0, done.stderr
    at(browser, f"{(tmp_path / 'out.html').as_uri()}#training")
    until(browser, lambda: seen(browser, "#count") == ["3 of 3"])
    at(browser, f"{(tmp_path / 'out.html').as_uri()}#training/0/step/0")
    until(browser, lambda: "Trained on" in seen(browser, "h3"))
    at(browser, f"{(tmp_path / 'out.html').as_uri()}#episodes")
    until(browser, lambda: seen(browser, "#count") == ["4 of 4"])
