"""The figures exist, are labelled and are reproducible. How they look is not tested."""

import io
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest
from PIL import Image

from sandcli.report.figures import figure3, figure4
from sandcli.report.parts import Figure
from sandcli.report.rows import agent_rows
from sandcli.report.scores import Evaluation, Score
from tests.report.made_up import evaluation, everywhere, score


@pytest.fixture(autouse=True)
def warnings_are_errors() -> object:
    """Turn warnings about glyphs and layouts into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def varied(count: int = 12) -> list[Score]:
    return [score(at, at / count, split, deliberated=at % 5) for at in range(count) for split in ("seen", "unseen")]


def texts(figure: Figure | None) -> list[str]:
    assert figure is not None
    image = Image.open(io.BytesIO(figure.png))
    image.load()
    assert round(image.info["dpi"][0]) == 200
    root = ET.fromstring(figure.svg)
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def iterations(last: int, world: str = "ScienceWorld", base: str = "m/tiny") -> list[Evaluation]:
    first = evaluation(f"{base}/{world}1", base=base, world=world, base_model=varied(), sft=varied(), model=varied())
    later = [
        evaluation(f"{base}/{world}{n}", base=base, world=world, iteration=n, model=varied())
        for n in range(2, last + 1)
    ]
    return [first, *later]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_iteration_has_a_tick_and_a_panel(count: int) -> None:
    rows = agent_rows(iterations(count))
    ticks = [f"it. {number}" for number in range(1, count + 1)]
    found = texts(figure3(rows))
    assert [text for text in found if text.startswith("it. ")] == ticks * 2
    for text in ("ScienceWorld seen", "ScienceWorld unseen", "SFT", "base", "reward per step", "deliberation rate"):
        assert text in found
    found = texts(figure4(rows))
    assert [text for text in found if text.startswith("SAND")] == [f"SAND, iteration {n}" for n in range(1, count + 1)]
    assert found.count("hard") == found.count("medium") == found.count("easy") == count
    assert found.count("n = 4") == 3 * count


def test_figure_4_shows_unseen_tasks_only() -> None:
    seen = [found for found in varied() if found.split == "seen"]
    assert figure4(agent_rows([evaluation(base_model=seen, model=seen)])) is None
    drawn = figure4(agent_rows(iterations(1)))
    assert drawn is not None and "each unseen task" in drawn.caption
    assert "tiny, ScienceWorld unseen, SAND, iteration 1: rho " in drawn.caption
    assert "ScienceWorld seen" not in drawn.caption


@pytest.mark.slow
def test_worlds_and_base_models_have_their_own_panels() -> None:
    rows = agent_rows([*iterations(2), *iterations(1, "ALFWorld"), *iterations(1, base="m/other")])
    assert {"tiny", "other", "ALFWorld unseen"} <= set(texts(figure3(rows)))
    assert {"tiny, ScienceWorld", "tiny, ALFWorld", "other, ScienceWorld"} <= set(texts(figure4(rows)))


@pytest.mark.slow
def test_the_same_numbers_give_the_same_bytes() -> None:
    rows = agent_rows(iterations(2))
    assert figure3(rows) == figure3(rows)
    assert figure4(rows) == figure4(rows)
    drawn = figure4(rows)
    assert drawn is not None and "<dc:date>" not in drawn.svg


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "model"),
    [
        (everywhere(0.1, 0.5, 0.9), everywhere(0.5, 0.5, 0.5)),
        (everywhere(0.0, 0.0, 1.0), everywhere(0.5, 0.5)),
        (everywhere(0.3, 0.6), everywhere(0.0)),
        (varied(), [found._replace(deliberated=0) for found in varied()]),
        (varied(60), [found._replace(deliberated=0, reward=0.0) for found in varied(60)]),
    ],
    ids=["equal rates", "two empty bands", "one task", "no deliberation", "all zero"],
)
def test_figures_of_little_data(base: Sequence[Score], model: Sequence[Score]) -> None:
    rows = agent_rows([evaluation(base_model=list(base), model=list(model))])
    assert "it. 1" in texts(figure3(rows))
    assert "SAND, iteration 1" in texts(figure4(rows))


@pytest.mark.slow
def test_names_are_drawn_literally() -> None:
    long = "a-run-with-a-name-that-is-longer-than-its-panel-is-wide"
    runs = [
        evaluation(f"runs/{name}", base_model=varied(), model=everywhere(0.1, 0.1, 0.1)) for name in (long, "x$y$<&")
    ]
    found = texts(figure3(agent_rows(runs)))
    assert "(x$y$<&)" in found
    assert f"it. 1({long})" in "".join(found)
    assert f"1 ({long})" in "".join(texts(figure4(agent_rows(runs))))


def test_without_data_there_is_no_figure() -> None:
    assert figure4(agent_rows([evaluation(model=varied())])) is None
    assert figure4(agent_rows([evaluation(base_model=varied(), sft=varied())])) is None
    assert figure3(agent_rows([evaluation(without="critique", model=varied())])) is None
