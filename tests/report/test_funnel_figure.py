"""The picture of the funnel exists, is labelled and is reproducible."""

import warnings
import xml.etree.ElementTree as ET

import pytest

from sandcli.report.funnel import Filter, Funnel
from sandcli.report.funnel_figure import funnel_figure
from sandcli.report.parts import Figure

LOST = {"repeats itself": 30, "leaves out a candidate": 20, "comes to no conclusion": 3, "lists no alternatives": 1}
FUNNEL = Funnel([Filter("expert steps", 1200, {}), Filter("sampled", 1200, {}), Filter("deliberated", 1146, LOST)])


@pytest.fixture(autouse=True)
def warnings_are_errors() -> object:
    """Turn warnings about glyphs and layouts into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def texts(figure: Figure | None) -> list[str]:
    assert figure is not None and figure.png.startswith(b"\x89PNG")
    root = ET.fromstring(figure.svg)
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_bars_name_counts_shares_and_reasons() -> None:
    found = texts(funnel_figure({"it1": FUNNEL}))
    assert {"expert steps", "deliberated", "1,200", "1,146 (96 %)"} <= set(found)
    assert "54 lost: repeats itself (30)" in " ".join(found)
    assert "other reasons (1)" in " ".join(found) and "lists no alternatives" not in " ".join(found)
    assert "it1" not in found


@pytest.mark.slow
def test_each_run_has_a_panel() -> None:
    names = {"runs/it1", "x$y$<&"}
    assert names <= set(texts(funnel_figure(dict.fromkeys(sorted(names), FUNNEL))))


def test_the_same_numbers_give_the_same_bytes() -> None:
    assert funnel_figure({"it1": FUNNEL}) == funnel_figure({"it1": FUNNEL})


def test_a_funnel_without_steps_is_drawn() -> None:
    nothing = Funnel([Filter("expert steps", 0, {}), Filter("sampled", 0, {})])
    assert "sampled" in texts(funnel_figure({"it1": nothing}))


def test_without_funnels_there_is_no_figure() -> None:
    assert funnel_figure({}) is None
