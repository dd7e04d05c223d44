"""Agents over training seeds."""

from statistics import stdev

import numpy as np
import pytest

from sandcli.report.estimates import Difference, Estimate
from sandcli.report.formats import comma_separated, latex, markdown, terminal
from sandcli.report.rows import agent_rows
from sandcli.report.scores import Evaluation
from sandcli.report.seeds import estimate, over_seeds, seeded_agents
from sandcli.report.sheets import grid
from tests.report.made_up import evaluation, scores


def trained(label: str, seed: int, *rewards: float) -> Evaluation:
    return evaluation(f"x/{label}/seed{seed}", label=label, seed=seed, model=scores(rewards))


def sft(seed: int, *rewards: float) -> Evaluation:
    return evaluation(f"x/sft/seed{seed}", seed=seed, sft=scores(rewards))


def test_agents_with_several_seeds_have_a_row() -> None:
    rows = agent_rows([trained("sand", 0, 0.0, 1.0), trained("sand", 1, 1.0, 1.0), trained("other", 0, 1.0, 1.0)])
    (agent,) = seeded_agents(rows)
    assert (agent.label, agent.seeds) == ("sand", (0, 1))
    assert agent.rewards.tolist() == [[0.0, 100.0], [100.0, 100.0]]


def test_row_holds_mean_spread_and_difference_from_sft() -> None:
    rows = agent_rows([sft(0, 0.0, 0.5), sft(1, 0.5, 0.5), trained("sand", 0, 0.5, 1.0), trained("sand", 1, 1.0, 1.0)])
    sheet = over_seeds(rows)
    assert sheet is not None
    reference, sand = sheet.rows
    assert reference.cells[5:] == [None, None]
    suite, seeds, tasks, mean, spread, gain, against = sand.cells
    assert (suite, seeds, tasks, against) == ("ScienceWorld seen", 2, 2, "SFT")
    assert isinstance(mean, Estimate) and mean.mean == 87.5
    assert spread == pytest.approx(stdev([75.0, 100.0]))
    assert gain == Difference(50.0, 50.0, 50.0, 2)


def test_no_table_with_one_seed() -> None:
    assert over_seeds(agent_rows([sft(0, 1.0), trained("sand", 0, 1.0)])) is None


def test_only_tasks_of_all_seeds_count() -> None:
    (agent,) = seeded_agents(agent_rows([trained("sand", 0, 0.0, 1.0, 1.0), trained("sand", 1, 1.0, 1.0)]))
    assert agent.rewards.shape == (2, 2)


def test_reference_has_the_same_seeds() -> None:
    rows = agent_rows([sft(0, 0.0), sft(1, 0.0), sft(2, 1.0), trained("sand", 0, 0.25), trained("sand", 2, 1.0)])
    sheet = over_seeds(rows)
    assert sheet is not None
    gain = sheet.rows[1].cells[5]
    assert isinstance(gain, Difference) and gain.mean == 12.5


def test_paired_differences_of_single_runs_use_the_same_seed() -> None:
    from sandcli.report.details import differences

    sheet = differences(agent_rows([sft(0, 0.0), sft(1, 1.0), trained("sand", 1, 1.0)]))
    assert sheet is not None
    against = {row.label: row.cells[0] for row in sheet.rows}
    assert against["sand"] == "SFT (seed1)" or "seed1" in str(against["sand"])


def test_interval_holds_seeds_and_tasks() -> None:
    rng = np.random.default_rng(1)
    tasks = rng.normal(50, 10, 40)
    same = np.tile(tasks, (3, 1))
    shifted = same + np.array([[-20.0], [0.0], [20.0]])
    assert estimate(same).mean == pytest.approx(estimate(shifted).mean)
    width = [found.high - found.low for found in (estimate(same), estimate(shifted))]
    assert width[1] > 3 * width[0] > 0


def test_interval_of_equal_rewards_has_no_width() -> None:
    assert estimate(np.full((2, 3), 70.0)) == Estimate(70.0, 70.0, 70.0)


def test_base_model_has_no_training_seed() -> None:
    runs = [evaluation(f"x/sand/seed{seed}", seed=seed, base_model=scores([0.5])) for seed in (0, 1)]
    assert seeded_agents(agent_rows(runs)) == []


def test_runs_that_differ_in_more_than_their_seed_are_left_out_and_named() -> None:
    runs = [
        evaluation(f"x/sand/seed{n}", label="sand", seed=n, model=scores([0.5]), trained_with={"train.epochs": str(n)})
        for n in (1, 2)
    ]
    sheet = over_seeds(agent_rows(runs))
    assert sheet is not None and sheet.rows == []
    assert "sand is left out: its runs do not differ in their seed only, but in train.epochs." in sheet.notes


def test_two_different_runs_with_one_seed_are_left_out_and_named() -> None:
    again = evaluation("y/sand/seed0", label="sand", model=scores([1.0]))
    sheet = over_seeds(agent_rows([trained("sand", 0, 0.5), trained("sand", 1, 0.5), again]))
    assert sheet is not None and sheet.rows == []
    assert any("two runs with the seed 0" in note for note in sheet.notes)


def test_table_without_rows_is_written_in_every_form() -> None:
    runs = [trained("sand", 0, 0.5), trained("sand", 1, 0.5), evaluation("y", label="sand", model=scores([1.0]))]
    sheet = over_seeds(agent_rows(runs))
    assert sheet is not None and sheet.rows == []
    table = grid(sheet)
    assert all("left out" in text for text in (markdown(table), latex(table), terminal(table, 80).plain))
    assert comma_separated(sheet).splitlines() == ["base model,agent,from," + ",".join(sheet.columns)]
