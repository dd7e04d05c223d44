"""How a panel can differ from the world on this machine."""

from typing import Any

import pytest

from sandcli.panels.check import differences
from sandcli.panels.panel import PanelTask
from tests.panels.made_up import panel, task
from tests.toyworld import ToyWorld

HERE = [task(6), task(7)]


def test_panel_of_this_world_has_no_difference() -> None:
    assert differences(panel(), ToyWorld()) == []


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({"versions": {"toyworld": "2"}}, ["toyworld is 2 in the panel and 1 here"]),
        ({"versions": {}}, ["toyworld is missing in the panel and 1 here"]),
        (
            {"splits": {"seen": [*HERE, task(12), task(13)]}},
            ["2 of 4 tasks are not here; the first: 'fetch_12' names no toy task"],
        ),
        (
            {"splits": {"seen": [*HERE, task(8, content="")], "unseen": [*HERE, task(9, content="stone")]}},
            ["2 of 4 tasks have other content here; the first: fetch_8"],
        ),
        (
            {
                "versions": {"toyworld": "1", "furniture": "3"},
                "splits": {"seen": [task(6, content="stone"), PanelTask(name="fly", variation=1, step_limit=8)]},
            },
            [
                "furniture is 3 in the panel and missing here",
                "1 of 2 tasks are not here; the first: 'fly_1' names no toy task",
                "1 of 2 tasks have other content here; the first: fetch_6",
            ],
        ),
    ],
)
def test_each_kind_of_difference_is_one_line(fields: dict[str, Any], lines: list[str]) -> None:
    assert differences(panel(**fields), ToyWorld()) == lines
