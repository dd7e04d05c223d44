"""The tables: numbers computed by hand, and the paper's numbers."""

from pathlib import Path
from typing import Any

import pytest

from sandcli.report.details import differences, difficulty, steps, success, types
from sandcli.report.estimates import Estimate
from sandcli.report.figures import figure3
from sandcli.report.rows import agent_rows
from sandcli.report.scores import Evaluation
from sandcli.report.sheets import Sheet
from sandcli.report.tables import table2, table3, table4
from tests.report.made_up import evaluation, everywhere, score, scores

LLAMA = """
base 47.7 42.2 22.9 28.4 (None)
SFT 75.6 65.1 79.3 71.6 (72.9)
SAND, iteration 1 86.6 77.5 92.9 91.8 (86.0)
SAND, iteration 2 88.7 78.2 94.3 94.0 (88.8)
SAND, iteration 3 85.7 79.1 94.3 96.3 (88.9)
ETO * 81.3 74.1 77.1 76.4 (77.2)
KnowAgent * 81.7 69.6 80.0 74.9 (76.6)
WKM * 82.1 76.5 77.1 78.2 (78.5)
ETO & MPO * 83.4 80.8 85.0 79.1 (82.1)
"""
QWEN = """
SFT 69.2 60.8 72.1 75.4 (69.4)
SAND, iteration 1 80.9 67.2 85.7 85.0 (79.7)
SAND, iteration 2 83.2 69.9 85.0 89.6 (81.9)
SAND, iteration 3 84.0 69.0 90.7 94.8 (84.6)
"""


def cells(sheet: Sheet | None, label: str, paper: bool = False) -> dict[str, Any]:
    """The numbers of one row by column; of an interval, the mean."""
    assert sheet is not None
    line = next(line for line in sheet.rows if line.label == label and line.paper is paper)
    means = (getattr(cell, "mean", cell) for cell in line.cells)
    return dict(zip(sheet.columns, means, strict=True))


def two_worlds(**models: Any) -> list[Evaluation]:
    return [evaluation("a", **models), evaluation("b", world="ALFWorld", **models)]


def test_table_2_contains_the_papers_numbers() -> None:
    sheet = table2(agent_rows([evaluation(model=everywhere(0.5))]))
    assert sheet.columns == ["ScienceWorld seen", "ScienceWorld unseen", "ALFWorld seen", "ALFWorld unseen", "average"]
    for base, printed in {"Llama-3.1-8B": LLAMA, "Qwen2.5-7B": QWEN}.items():
        theirs = [line for line in sheet.rows if line.paper and line.group == base]
        assert [
            line.label + "".join(f" {cell}" for cell in line.cells[:4]) + f" ({line.cells[4]})" for line in theirs
        ] == (printed.strip().splitlines())


def test_table_2_averages_rewards_and_the_four_test_sets() -> None:
    ours = [
        evaluation("a", model=scores([0.5, 1.0]) + scores([0.0, 0.5, 0.1], "unseen")),
        evaluation("b", world="ALFWorld", model=scores([1.0]) + scores([0.0, 1.0], "unseen")),
    ]
    found = cells(table2(agent_rows(ours)), "SAND, iteration 1")
    assert list(found.values()) == [pytest.approx(value) for value in (75, 20, 100, 50, 61.25)]


def test_table_2_has_no_average_over_three_test_sets() -> None:
    ours = [evaluation("a", model=everywhere(0.5)), evaluation("b", world="ALFWorld", model=scores([1.0]))]
    found = cells(table2(agent_rows(ours)), "SAND, iteration 1")
    assert found["ALFWorld unseen"] is None and found["average"] is None


def test_our_numbers_have_intervals_and_a_note_if_the_test_sets_differ_from_the_papers() -> None:
    sheet = table2(agent_rows(two_worlds(model=everywhere(0.0, 1.0))))
    assert all(isinstance(cell, Estimate) for cell in sheet.rows[0].cells)
    assert any("ScienceWorld seen: 2 of 194" in note for note in sheet.notes)


def test_a_world_that_the_paper_does_not_use_is_shown_alone() -> None:
    sheet = table2(agent_rows([evaluation(world="ToyWorld", model=everywhere(0.5))]))
    assert sheet.columns == ["ToyWorld seen", "ToyWorld unseen", "average"]
    assert not any(line.paper for line in sheet.rows)


def test_table_3_contains_the_papers_numbers() -> None:
    sheet = table3(
        agent_rows([evaluation(without="sampling", model=everywhere(0.5)), *two_worlds(model=everywhere(0))])
    )
    assert sheet is not None
    printed = {(line.group, line.label): line.cells[:4] for line in sheet.rows if line.paper}
    assert printed == {
        ("Llama-3.1-8B", "without sampling"): [70.3, 62.0, 85.7, 77.3],
        ("Llama-3.1-8B", "without critique"): [78.6, 73.7, 85.0, 86.6],
        ("Qwen2.5-7B", "without sampling"): [63.5, 52.4, 72.1, 62.7],
        ("Qwen2.5-7B", "without critique"): [72.0, 66.3, 70.6, 75.0],
    }


def test_table_3_shows_ablations_with_their_iteration() -> None:
    runs = [
        evaluation("a", sft=scores([0.1]), model=scores([0.5])),
        evaluation("b", iteration=2, model=scores([0.9])),
        evaluation("c", without="sampling", model=scores([0.2])),
        evaluation("d", without="critique", model=scores([0.3])),
    ]
    sheet = table3(agent_rows(runs))
    assert sheet is not None
    ours = ["SFT", "SAND, iteration 1", "without sampling", "without critique"]
    assert [line.label for line in sheet.rows if not line.paper] == ours
    assert cells(sheet, "without critique")["ScienceWorld seen"] == 30
    assert cells(sheet, "without critique", paper=True)["ScienceWorld seen"] == 78.6
    assert {line.group for line in sheet.rows if line.paper} == {"Llama-3.1-8B", "Qwen2.5-7B"}
    assert table3(agent_rows(runs[:2])) is None


def test_table_4_shows_average_tokens_and_the_papers() -> None:
    model = [score(0, 1, tokens=100), score(1, 0, tokens=300), score(0, 0, "unseen", tokens=500)]
    sheet = table4(agent_rows([evaluation("a", model=model), evaluation("b", world="ALFWorld", model=scores([1]))]))
    assert sheet is not None
    assert cells(sheet, "SAND, iteration 1") == {"ScienceWorld": 300, "ALFWorld": 100}
    assert cells(sheet, "SFT", paper=True) == {"ScienceWorld": 800.0, "ALFWorld": 498.3}
    assert cells(sheet, "SAND, iteration 1", paper=True) == {"ScienceWorld": 2411.9, "ALFWorld": 1314.2}
    assert cells(sheet, "SAND, iteration 2", paper=True) == {"ScienceWorld": 2522.1, "ALFWorld": 1105.8}
    assert cells(sheet, "SAND, iteration 3", paper=True) == {"ScienceWorld": 2253.6, "ALFWorld": 1146.2}
    assert {row.group for row in sheet.rows if row.paper} == {"Llama-3.1-8B"}


def test_success_rate_by_both_definitions() -> None:
    model = [score(0, 1.0), score(1, 0.99), score(2, 0.0, done=True), score(3, 1.0)]
    found = success(agent_rows([evaluation(model=model)]))
    assert cells(found, "SAND, iteration 1") == {"test set": "ScienceWorld seen", "reward 1": 50, "episode done": 75}


def test_differences_are_to_sft_of_the_same_base_model() -> None:
    runs = [
        evaluation("a", base_model=scores([0.0, 0.5]), sft=scores([0.5, 0.5]), model=scores([1.0, 0.5])),
        evaluation("b", base="m/other", model=scores([0.1])),
    ]
    sheet = differences(agent_rows(runs))
    assert sheet is not None
    assert [(line.label, line.cells[0], line.cells[2]) for line in sheet.rows] == [
        ("base", "SFT", 2),
        ("SAND, iteration 1", "SFT", 2),
    ]
    assert cells(sheet, "base")["difference"] == -25
    assert differences(agent_rows(runs[1:])) is None


def test_differences_are_to_the_nearest_sft() -> None:
    runs = [
        evaluation("x/s1/it1", sft=scores([0.5]), model=scores([0.6])),
        evaluation("x/s2/it1", sft=scores([0.1])),
        evaluation("x/s2/it2", iteration=2, model=scores([0.3])),
    ]
    sheet = differences(agent_rows(runs))
    assert sheet is not None
    found = {line.label: (line.cells[0], round(line.cells[3].mean)) for line in sheet.rows}  # type: ignore[union-attr]
    assert found == {
        "SFT (s2/it1)": ("SFT (s1/it1)", -40),
        "SAND, iteration 1": ("SFT (s1/it1)", 10),
        "SAND, iteration 2": ("SFT (s2/it1)", 20),
    }


def test_without_sft_on_a_world_differences_are_to_the_base_model() -> None:
    runs = [
        evaluation("a", sft=scores([0.5]), base_model=scores([0.1]), model=scores([0.6])),
        evaluation("b", world="ALFWorld", base_model=scores([0.0]), model=scores([1.0])),
    ]
    sheet = differences(agent_rows(runs))
    assert sheet is not None
    assert [(line.label, *line.cells[:2]) for line in sheet.rows] == [
        ("base", "SFT", "ScienceWorld seen"),
        ("SAND, iteration 1", "SFT", "ScienceWorld seen"),
        ("SAND, iteration 1", "base", "ALFWorld seen"),
    ]


def test_every_table_notes_which_rows_have_different_tasks() -> None:
    rows = agent_rows([evaluation(sft=scores([0.5, 0.5]), model=scores([0.6]), base_model=scores([0.0, 0.1]))])
    note = (
        "Tasks: ScienceWorld seen 2 (base and SFT), 1 (SAND, iteration 1). "
        "Averages over different tasks are not comparable; paired differences are."
    )
    for draw in (table2, table4, success, types, steps):
        sheet = draw(rows)
        assert sheet is not None and note in sheet.notes
    figure = figure3(rows)
    assert figure is not None and note in figure.caption


def test_each_task_type_has_a_row() -> None:
    model = scores([0.5, 0.7]) + scores([0.9], "unseen", kind="melt")
    sheet = types(agent_rows([evaluation(model=model, sft=scores([0.1], kind="melt"))]))
    assert cells(sheet, "boil") == {"SFT": None, "SAND, iteration 1": pytest.approx(60)}
    assert cells(sheet, "melt") == {"SFT": pytest.approx(10), "SAND, iteration 1": pytest.approx(90)}


def test_difficulty_shows_reward_rate_and_empty_bands() -> None:
    model = [score(0, 0.1, deliberated=4), score(1, 0.3, deliberated=2), score(2, 1.0, deliberated=0)]
    sheet = difficulty(agent_rows([evaluation(base_model=scores([0.0, 0.0, 1.0]), model=model)]))
    assert sheet is not None
    own = [line.cells for line in sheet.rows if line.label == "SAND, iteration 1"]
    assert [(cell[1], cell[2], cell[4]) for cell in own] == [("hard", 2, 75), ("medium", 0, None), ("easy", 1, 0)]
    assert any(note.endswith("no task is medium.") for note in sheet.notes)
    assert difficulty(agent_rows([evaluation(model=model)])) is None


def test_rates_are_averaged_over_tasks_not_steps() -> None:
    model = [
        score(0, 1.0, steps=2, deliberated=1),
        score(1, 0.5, steps=10, deliberated=10),
        score(2, 0, steps=0, deliberated=0),
    ]
    found = cells(steps(agent_rows([evaluation(model=model)])), "SAND, iteration 1")
    assert found["reward/step"] == pytest.approx((0.5 + 0.05 + 0) / 3)
    assert found["deliberation"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["steps"] == 4


def test_only_empty_bands_of_the_base_model_are_noted() -> None:
    rewards = [0.0, 0.1, 0.2, 0.6, 0.8, 1.0]
    found = difficulty(agent_rows([evaluation(base_model=scores(rewards), model=scores(rewards)[4:])]))
    assert found is not None and not any("no task is" in note for note in found.notes)


def test_training_tasks_are_counted_only_in_tables_that_include_them() -> None:
    made = evaluation(sft=scores([0.5]) + scores([1.0, 1.0], "train"))
    found = table4(agent_rows([made]))
    assert found is not None and found.notes[-1] == "Tasks: ScienceWorld seen 1."


def test_the_nearest_sft_is_found_with_relative_and_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [
        evaluation(f"{tmp_path}/A/it1", sft=scores([0.0])),
        evaluation("B/it1", sft=scores([1.0])),
        evaluation(f"{tmp_path}/B/it2", iteration=2, model=scores([1.0])),
    ]
    found = differences(agent_rows(runs))
    assert found is not None
    assert [line.cells[0] for line in found.rows if line.label == "SAND, iteration 2"] == ["SFT (B/it1)"]
