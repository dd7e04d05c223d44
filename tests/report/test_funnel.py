"""The funnel's arithmetic and its table."""

from itertools import pairwise

from sandcli.report.funnel import FLAGGED, Filter, Funnel, Passed, filtered, funnel_sheet
from sandcli.report.sheets import flat, plain

KEYS = [("a", t) for t in range(10)]


def passed(name: str, *steps: int) -> Passed:
    return Passed(name, {KEYS[t] for t in steps}, lambda key: "odd" if int(key[1]) % 2 else "even")


def test_each_filter_sees_what_the_one_before_kept() -> None:
    found = filtered([passed("all", *range(10)), passed("some", 0, 1, 2, 3), passed("few", 0, 1, 9)])
    assert found == [
        Filter("all", 10, {}),
        Filter("some", 4, {"even": 3, "odd": 3}),
        Filter("few", 2, {"even": 1, "odd": 1}, outside=1),
    ]
    for before, after in pairwise(found):
        assert before.kept == after.kept + sum(after.lost.values())


def test_reasons_come_most_frequent_first() -> None:
    (_, found) = filtered([passed("all", *range(10)), passed("some", 0, 2)])
    assert list(found.lost.items()) == [("odd", 5), ("even", 3)]


def test_without_filters_there_is_nothing() -> None:
    assert filtered([]) == []


def test_the_table_has_shares_of_what_came_in_and_of_all() -> None:
    funnel = Funnel([Filter("expert steps", 10, {}), Filter(FLAGGED, 4, {"same": 6}), Filter("done", 1, {"bad": 3})])
    sheet = funnel_sheet("funnel", "it1", "tiny", funnel)
    assert [row[1:2] + row[3:] for row in flat(sheet)] == [
        ["filter", "outcome", "steps", "of before, %", "of all, %"],
        ["expert steps", "kept", 10, 100, 100],
        [FLAGGED, "kept", 4, 40, 40],
        [FLAGGED, "same", 6, 60, 60],
        ["done", "kept", 1, 25, 10],
        ["done", "bad", 3, 75, 30],
    ]
    assert "done: 1 of 4 inconsistent steps (25.0 %)." in sheet.notes


def test_an_empty_funnel_divides_by_nothing() -> None:
    sheet = funnel_sheet("funnel", "it1", "tiny", Funnel([Filter("expert steps", 0, {}), Filter(FLAGGED, 0, {})]))
    assert [row["cells"]["of all, %"] for row in plain(sheet)["rows"]] == [None, None]


def test_steps_outside_are_told() -> None:
    funnel = Funnel([Filter("expert steps", 3, {}), Filter(FLAGGED, 2, {"same": 1}, outside=5)], ["a note"])
    notes = funnel_sheet("funnel", "it1", "tiny", funnel).notes
    assert any(note.startswith("inconsistent: 5 steps are not counted") for note in notes)
    assert notes[-1] == "a note"
