"""Preference optimisation: TRL's losses, masks on real templates, adapters, batches, and resuming after a kill."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from datasets import Dataset
from msgspec.structs import replace
from trl import DPOConfig, DPOTrainer

from sandcli.core.run import Run
from sandcli.engines.adapters import is_adapter
from sandcli.engines.loading import load_model
from sandcli.engines.tokens import load_tokenizer
from sandcli.errors import Exit, UsageError
from sandcli.messages import Message, Said
from sandcli.records import Pair, Task
from sandcli.training.batches import Batches
from sandcli.training.config import Hooks, TrainingConfig, TrainingResult
from sandcli.training.plan import plan_training
from sandcli.training.preferences import real_shares, weights
from sandcli.training.rows import pair_row
from sandcli.training.trainer import fit
from sandcli.training_settings import ComputeSettings, PreferSettings
from tests.families import HOOKS, trained_spans
from tests.helpers import REPO, environment, make_run, perform, wait_until, write_rules
from tests.stages.test_explore import RULES

pytestmark = pytest.mark.real

PREAMBLE = [Message("system", "You act in a text world.")]
AIMS = PreferSettings(lora_rank=4, learning_rate=1e-3, epochs=2, batch_size=2, warmup=0.0, beta=0.5)
QUIET = ComputeSettings(checkpoint_minutes=60)


def said(*texts: str) -> list[Said]:
    """Turns of the agent, with observations between them."""
    return [Said("user" if number % 2 else "assistant", text) for number, text in enumerate(texts)]


def pair(name: str, chosen: Sequence[str], rejected: Sequence[str], shared: Sequence[str] = ()) -> Pair:
    prompt = [Said("user", f"Open door {name}."), *said(*shared)]
    return Pair(
        id=name,
        place=[0],
        task=Task(name="toy", variation=0),
        prompt=prompt,
        chosen=said(*chosen),
        rejected=said(*rejected),
        chosen_reward=1.0,
        rejected_reward=0.0,
        chosen_from="expert",
        rejected_from="explored",
    )


PAIRS = [pair(str(n), [f"Action: push {n}"], [f"Thought: I wait.\nAction: wait {n} times"]) for n in range(3)]
LONG = pair(
    "long",
    ["Action: push", "Observation: It opens.", "Action: enter"],
    ["Action: wait", "Observation: Time passes.", "Thought: Hm.\nAction: wait"],
    ["Action: look", "Observation: A door."],
)


def train(
    start: Path,
    work: Path,
    pairs: Sequence[Pair] = PAIRS,
    aims: PreferSettings = AIMS,
    compute: ComputeSettings = QUIET,
    hooks: Hooks = HOOKS,
) -> TrainingResult:
    return fit(configured(start, work, aims, compute), pairs, hooks)


def configured(
    start: Path, work: Path, aims: PreferSettings = AIMS, compute: ComputeSettings = QUIET
) -> TrainingConfig:
    return TrainingConfig(start, PREAMBLE, aims, compute, 0, work, work / "log.jsonl", record=Pair)


def losses(result: TrainingResult) -> list[float]:
    return [step.loss for step in result.log]


@pytest.fixture(scope="module")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a template that puts nothing between turns: TRL would train on it, and we do not."""
    folder = tmp_path_factory.mktemp("models") / "plain"
    shutil.copytree(tiny, folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of an uninterrupted training."""
    return losses(train(tiny, tmp_path_factory.mktemp("whole")))


def test_losses_are_those_of_trls_own_trainer_if_there_are_no_observations(plain: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(plain)
    log = train(plain, tmp_path / "ours").log
    ours = [step.loss for step in log]
    order = [n for n in plan_training(configured(plain, tmp_path), PAIRS).batches.order if n < len(PAIRS)]
    batches = [order[0:2], order[2:3], order[3:5], order[5:6]]
    assert len(ours) == len(batches)
    rows = [
        {
            "prompt": [*(m._asdict() for m in PREAMBLE), {"role": "user", "content": each.prompt[0].content}],
            "chosen": [{"role": "assistant", "content": each.chosen[0].content}],
            "rejected": [{"role": "assistant", "content": each.rejected[0].content}],
        }
        for each in (PAIRS[n] for batch in batches for n in (batch if len(batch) == 2 else batch * 2))
    ]  # the last batch of an epoch holds one pair: twice the same has the same mean
    config = DPOConfig(
        str(tmp_path / "trl"),
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        per_device_train_batch_size=2,
        learning_rate=AIMS.learning_rate,
        lr_scheduler_type="constant",
        beta=AIMS.beta,
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        max_length=None,
        logging_steps=1,
        report_to="none",
    )
    trainer = DPOTrainer(
        load_model(plain, training=True),
        load_model(plain),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    theirs = [entry["loss"] for entry in steps]
    assert ours[0] == pytest.approx(math.log(2), abs=1e-3) and ours[-1] < ours[0] - 0.01
    assert ours == pytest.approx(theirs, rel=1e-4)
    margins, accuracies = ([entry[f"rewards/{name}"] for entry in steps] for name in ("margins", "accuracies"))
    assert [step.margin for step in log] == pytest.approx(margins, rel=1e-3, abs=1e-4) and margins[-1] > 0.01
    assert [step.accuracy for step in log[1:]] == accuracies[1:] == [1.0] * 3  # before the first step, sides are equal


def test_loss_covers_only_the_agents_turns_after_what_both_share(smollm: Path) -> None:
    tokenizer = load_tokenizer(smollm)
    row = pair_row(tokenizer, PREAMBLE, LONG)
    assert [tokenizer.decode(span) for span in trained_spans(row.chosen)] == [
        "Action: push<|im_end|>",
        "Action: enter<|im_end|>",
    ]
    assert [tokenizer.decode(span) for span in trained_spans(row.rejected)] == [
        "Action: wait<|im_end|>",
        "Thought: Hm.\nAction: wait<|im_end|>",
    ]
    assert "Action: look<|im_end|>" in tokenizer.decode(row.chosen.input_ids)


def test_every_pair_of_a_batch_weighs_the_same_and_the_empty_row_nothing() -> None:
    batches = Batches(order=[0, 1, 2, 3, 1, 4, 4, 4], accumulate=2, tokens=[9, 9], epoch=1)  # 4 is the empty row
    assert real_shares(batches, 4) == [1.0, 0.25]
    assert weights(batches, 4) == [1.0, 1.0, 1.0, 1.0, 4.0, 0.0, 0.0, 0.0]


def test_batch_is_the_mean_of_its_pairs_whatever_its_size(tiny: Path, tmp_path: Path) -> None:
    """The first loss of a batch is log 2 whatever it holds; the last, smaller batch must not count filled-up rows."""
    result = train(tiny, tmp_path, [*PAIRS, LONG, PAIRS[0]], replace(AIMS, batch_size=4, epochs=1, learning_rate=1e-9))
    assert losses(result) == pytest.approx([math.log(2)] * 2, abs=1e-3)
    assert [step.margin for step in result.log] == pytest.approx([0.0] * 2, abs=1e-3)


def test_adapter_is_trained_and_held_to_what_it_was(tiny: Path, tmp_path: Path) -> None:
    aims = replace(AIMS, method="lora")
    first = train(tiny, tmp_path / "first", aims=aims)
    again = train(tmp_path / "first" / "result", tmp_path / "second", aims=aims)
    for result, work in ((first, "first"), (again, "second")):
        folder = tmp_path / work / "result"
        assert result.finished and is_adapter(folder) and not (folder / "ref").exists()
        assert losses(result)[0] == pytest.approx(math.log(2), abs=1e-3) and losses(result)[-1] < losses(result)[0]
    assert load_model(tmp_path / "second" / "result").num_parameters() > 0


def test_training_resumes_to_the_same_losses_and_does_not_ask_the_reference_again(
    tiny: Path, tmp_path: Path, whole: list[float]
) -> None:
    done: list[int] = []
    planned: list[tuple[int, int]] = []
    hooks = HOOKS._replace(
        stepped=lambda: done.append(1),
        planned=lambda total, first: planned.append((total, first)),
        stop=lambda: len(done) >= len(PAIRS) + 3,
    )
    saving = ComputeSettings(checkpoint_minutes=0)
    stopped = train(tiny, tmp_path, compute=saving, hooks=hooks)
    assert not stopped.finished and planned == [(len(PAIRS) + 1, 0), (len(whole), 0)]
    planned.clear()
    resumed = train(tiny, tmp_path, compute=saving, hooks=hooks._replace(stop=lambda: False))
    assert planned == [(len(whole), 2)]
    assert resumed.finished and losses(resumed) == pytest.approx(whole, rel=1e-4)


def test_stop_while_the_reference_is_asked_leaves_an_unfinished_training(tiny: Path, tmp_path: Path) -> None:
    result = train(tiny, tmp_path, hooks=HOOKS._replace(stop=lambda: True))
    assert not result.finished and not (tmp_path / "reference.json").exists()


@pytest.mark.parametrize(("rule", "rows"), [("drop", 1), ("cut", 2)])
def test_pairs_that_are_too_long_are_left_out_or_lose_whole_steps_and_are_reported(
    tiny: Path, tmp_path: Path, rule: str, rows: int
) -> None:
    limit = plan_training(configured(tiny, tmp_path), [LONG]).size.longest - 1
    plan = plan_training(configured(tiny, tmp_path, replace(AIMS, max_length=limit, too_long=rule)), [PAIRS[0], LONG])
    assert plan.size.rows == rows and plan.size.longest <= limit
    (why,) = plan.size.too_long.values()
    assert list(plan.size.too_long) == ["long 0"] and why.startswith("rejected ") and f"{limit} are allowed" in why


def test_nothing_to_prefer_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pairs to train on; long 0: chosen left out"):
        train(tiny, tmp_path, [LONG], replace(AIMS, max_length=3))


def test_what_two_processes_begin_and_one_finishes_after_a_kill_is_what_one_learns(tiny: Path, tmp_path: Path) -> None:
    write_rules(tmp_path / "rules.json", RULES)
    alone = make_run(
        tmp_path / "alone",
        env__tasks="carry",
        method__name="eto",
        explore__n=2,
        explore__temperature=1,
        model__base=str(tiny),
        model__policy=str(tiny),
        prefer__learning_rate=1e-3,
        prefer__batch_size=2,
        prefer__warmup=0,
        prefer__epochs=4,
        trainer__checkpoint_minutes=0,
    )
    perform("collect", alone, limit=3)
    perform("explore", alone)
    perform("pairs", alone)
    both = tmp_path / "both"
    shutil.copytree(alone, both)
    assert perform("prefer", alone, trainer__checkpoint_minutes=60.0).exit is Exit.DONE
    whole, margins = logged(alone), logged(alone, "margin")
    assert len(whole) >= 4 and whole[-1] < whole[0]
    command = [sys.executable, "-m", "sandcli", "prefer", "--run", str(both), "--nproc", "2"]
    child = subprocess.Popen(command, cwd=REPO, env=environment(), stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: len(logged(both)) >= 2)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert not (both / "model").exists()
    assert len(logged(both)) < len(whole)
    assert perform("prefer", both).exit is Exit.DONE
    assert logged(both) == pytest.approx(whole, rel=1e-3)
    assert logged(both, "margin") == pytest.approx(margins, rel=1e-2, abs=1e-3)
    made = Run(both).artifact("prefer").manifest()
    assert made is not None and made.figures["last_margin"] == logged(both, "margin")[-1] > 0.01


def logged(run: Path, figure: str = "loss") -> list[float]:
    """A figure of every logged step so far; a line that is being written does not count."""
    log = run / "logs" / "prefer.jsonl"
    written = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line)[figure] for line in written if line.endswith("\n")]


def test_pair_whose_sides_are_equal_within_the_limit_is_left_out(tiny: Path, tmp_path: Path) -> None:
    same = ["Action: look", "Observation: A door."]
    both = pair("same", [*same, "Action: push"], [*same, "Action: wait for a very long time"])
    whole = plan_training(configured(tiny, tmp_path), [both])
    aims = replace(AIMS, max_length=whole.size.longest - 8, too_long="cut")
    (why,) = plan_training(configured(tiny, tmp_path, aims), [both]).size.too_long.values()
    assert "nothing tells the sides apart" in why
