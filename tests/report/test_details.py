"""The table of the effect of deliberation: the same weights with free, suppressed and forced deliberation."""

from sandcli.report.compare import warnings
from sandcli.report.details import deliberation
from sandcli.report.estimates import Difference
from sandcli.report.rows import agent_rows
from tests.report.made_up import evaluation, scores

NEVER, ALWAYS = "model, never deliberating", "model, always deliberating"


def test_suppressed_and_forced_deliberation_are_paired_with_free() -> None:
    found = {
        "base": scores([0.0, 0.5, 1.0]),
        "model": scores([0.2, 0.4, 0.6]),
        NEVER: scores([0.1, 0.4, 0.6], deliberated=0),
        ALWAYS: scores([0.5, 0.4], deliberated=4),
    }
    rows = agent_rows([evaluation(scores=found)])
    assert [row.label for row in rows] == [
        "base", "SAND, iteration 1", "SAND, iteration 1, never deliberating", "SAND, iteration 1, always deliberating"
    ]  # fmt: skip
    sheet = deliberation(rows)
    assert sheet is not None
    never, always = sheet.rows[:4], sheet.rows[4:]
    assert [row.cells[1:3] for row in never] == [["all", 3], ["hard", 1], ["medium", 1], ["easy", 1]]
    differences = [row.cells[3] for row in (*never, *always)]
    assert [round(d.mean, 6) if isinstance(d, Difference) else d for d in differences] == [
        -3.333333, -10, 0, 0, 15, 30, 0, None
    ]  # fmt: skip
    assert [row.cells[4] for row in (never[0], always[0])] == [0, 100]


def test_without_a_free_evaluation_nothing_is_compared() -> None:
    assert deliberation(agent_rows([evaluation(scores={NEVER: scores([0.1])})])) is None
    assert deliberation(agent_rows([evaluation(model=scores([0.1]))])) is None


def test_printed_commands_evaluate_the_same_agents() -> None:
    found = evaluation("r", scores={"model": scores([0.1, 0.2]), ALWAYS: scores([0.5])}, accepted=("x",))
    said = "\n".join(warnings([found], agent_rows([found])))
    assert "sand eval --run r --models model --deliberation free,always --force" in said
    assert "sand eval --run r --splits seen --models model --deliberation always" in said
