"""For any file: the importer reads it or refuses it in one line. Text before the task changes nothing."""

import json
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sandcli.agent.turns import has_action_line, render
from sandcli.errors import UsageError
from sandcli.importers.conversations import RecordedTrajectory, UnusableRow, read_row, read_trajectory
from sandcli.importers.rows import read_rows
from tests.agent.texts import ACTIONS, THOUGHTS

ONE_FILE = [HealthCheck.function_scoped_fixture]
WORDS = st.text(min_size=1).filter(lambda text: text.strip() and not has_action_line(text))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.fixed_dictionaries(
    {}, optional={"from": st.sampled_from(["human", "gpt"]) | JSON, "value": st.text(max_size=9) | JSON}
)
ROWS = st.fixed_dictionaries({}, optional={"id": JSON, "conversations": st.lists(MESSAGES, max_size=4) | JSON})


def read(path: Path) -> list[RecordedTrajectory]:
    return [read_trajectory(read_row(row.content)) for row in read_rows(path)]


def refused_or_read(path: Path) -> None:
    try:
        for row in read_rows(path):
            with suppress(UnusableRow):
                read_trajectory(read_row(row.content))
    except UsageError as error:
        assert str(path) in error.what and "\n" not in error.what and error.fix


@settings(max_examples=60, suppress_health_check=ONE_FILE)
@example(b"[" * 100_000)
@example(b'[{"id": "\\ud800"}]')
@given(st.binary() | (st.lists(ROWS) | JSON).map(lambda rows: json.dumps(rows).encode()))
def test_any_file_is_read_or_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    refused_or_read(path)


@settings(max_examples=60, suppress_health_check=ONE_FILE)
@given(
    st.lists(st.tuples(WORDS, WORDS), max_size=3),
    WORDS,
    st.lists(st.tuples(THOUGHTS, ACTIONS, WORDS), min_size=1, max_size=3),
)
def test_preamble_of_any_length_changes_nothing_else(
    tmp_path: Path, preamble: list[tuple[str, str]], task: str, turns: list[tuple[str, str, str]]
) -> None:
    said = [("human", task)]
    for thought, action, observation in turns:
        said += [("gpt", render(thought, action)), ("human", observation)]
    before = [message for asked, answered in preamble for message in (("human", asked), ("gpt", answered))]
    path = tmp_path / "rows.json"
    found = []
    for messages in (said, before + said):
        row = {"id": "a", "conversations": [{"from": who, "value": text} for who, text in messages]}
        path.write_text(json.dumps([row]))
        found.append(read(path))
    assert [message.content for message in found[1][0].preamble] == [text for _, text in before]
    assert found[0] == [one._replace(preamble=()) for one in found[1]]
    assert [turn.action for turn in found[0][0].turns] == [action for _, action, _ in turns]
