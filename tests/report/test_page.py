"""The page's index of records."""

import json
import re

from msgspec.structs import replace

from sandcli.episodes import Deliberation, Episode
from sandcli.records import Task
from sandcli.report.page import Page, RunData, page_of

LABELS = {"model": "SAND, iteration 1", "model, never deliberating": "SAND, iteration 1, never deliberating"}


def episode(deliberation: Deliberation) -> Episode:
    outcome = {"steps": [], "reward": 0.5, "success": False, "end": "max_steps", "deliberated": 0, "tokens": 1}
    task = Task(name="boil", variation=1)
    return Episode(
        split="seen",
        task=task,
        model="model",
        instruction="",
        deliberation=deliberation,
        **outcome,  # type: ignore[arg-type]
    )


def test_episodes_of_the_same_model_are_told_apart_by_their_deliberation() -> None:
    run = RunData("it1", LABELS, [episode("free"), episode("never"), episode("always")], [])
    written = b"".join(page_of(Page("report", [], [], []), [run])).decode()
    found = re.search(r'id="index">([^<]*)<', written)
    assert found is not None
    agents = [entry[1] for entry in json.loads(found[1])["episodes"]]
    assert agents == [*LABELS.values(), "model, always deliberating"]


def test_episodes_of_the_same_task_are_told_apart_by_their_number() -> None:
    episodes = [replace(episode("free"), draw=draw) for draw in range(2)]
    written = b"".join(page_of(Page("report", [], [], []), [RunData("it1", LABELS, episodes, [])])).decode()
    found = re.search(r'id="index">([^<]*)<', written)
    assert found is not None
    assert [entry[3] for entry in json.loads(found[1])["episodes"]] == ["boil_1", "boil_1 (draw 1)"]
