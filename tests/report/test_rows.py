"""How evaluations become the rows of the paper's tables."""

from sandcli.report.rows import agent_rows, short_names
from sandcli.report.scores import Suite
from tests.report.made_up import evaluation, scores

SOME = scores([0.5])


def labels(*evaluations: object) -> list[tuple[str, str]]:
    return [(row.group, row.label) for row in agent_rows(evaluations)]  # type: ignore[arg-type]


def test_rows_have_the_names_and_order_of_the_paper() -> None:
    found = labels(
        evaluation("b", iteration=2, model=SOME),
        evaluation("c", without="sampling", model=SOME, sft=SOME),
        evaluation("d", without="critique", model=SOME),
        evaluation("e", method="rft", iteration=2, model=SOME),
        evaluation("a", **{"model": SOME, "base_model": SOME, "../x/model": SOME}),
    )
    assert [label for _, label in found] == [
        "base",
        "SFT",
        "RFT, iteration 2",
        "SAND, iteration 1",
        "SAND, iteration 2",
        "without sampling",
        "without critique",
        "../x/model",
    ]
    assert {group for group, _ in found} == {"tiny"}


def test_a_folder_named_like_a_row_of_the_paper_is_a_separate_row() -> None:
    found = labels(evaluation("a", **{"sft": SOME, "SFT": SOME}))
    assert [label for _, label in found] == ["SFT", "./SFT"]


def test_two_worlds_are_one_row() -> None:
    (row,) = agent_rows([evaluation("a", model=SOME), evaluation("b", world="ALFWorld", model=SOME)])
    assert set(row.scores) == {Suite("ScienceWorld", "seen"), Suite("ALFWorld", "seen")}
    assert row.sources == {"ScienceWorld": ("a", "model"), "ALFWorld": ("b", "model")}


def test_rows_of_the_same_name_are_labelled_with_their_runs() -> None:
    found = labels(evaluation("runs/x", model=SOME, sft=SOME), evaluation("runs/y", model=SOME))
    assert [label for _, label in found] == ["SFT", "SAND, iteration 1 (x)", "SAND, iteration 1 (y)"]
    found = labels(evaluation("x/run", sft=SOME), evaluation("y/run", sft=SOME))
    assert [label for _, label in found] == ["SFT (x/run)", "SFT (y/run)"]


def test_rows_are_grouped_by_base_model() -> None:
    found = labels(
        evaluation("a", base="hub/Llama", sft=SOME),
        evaluation("b", base="Qwen", sft=SOME),
        evaluation("c", base="hub/Llama", model=SOME),
    )
    assert found == [("Llama", "SFT"), ("Llama", "SAND, iteration 1"), ("Qwen", "SFT")]
    found = labels(evaluation("a", base="/x/model", sft=SOME), evaluation("b", base="/y/model", sft=SOME))
    assert found == [("x/model", "SFT"), ("y/model", "SFT")]


def test_short_names_are_as_short_as_possible() -> None:
    assert short_names(["a/b/c", "a/d/c", "e"]) == {"a/b/c": "b/c", "a/d/c": "d/c", "e": "e"}
    assert short_names(["."]) == {".": "."}


def test_ablations_of_different_iterations_are_separate_rows() -> None:
    first = evaluation("a", without="critique", model=SOME)
    later = evaluation("b", without="critique", iteration=2, world="ALFWorld", model=SOME)
    assert [label for _, label in labels(first, later)] == ["without critique", "without critique, iteration 2"]
