"""Fine-tuning: masks on real templates, learning, reports of long trajectories, and resuming after a kill."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from msgspec.structs import replace

from sandcli.agent.conversation import conversation, training_messages
from sandcli.engines.loading import load_model
from sandcli.engines.templates import render
from sandcli.engines.tokens import load_tokenizer, prompt_ids
from sandcli.errors import PrerequisiteError, SandError, UsageError
from sandcli.messages import Message
from sandcli.models import portable_name
from sandcli.records import Step, Task, Trajectory
from sandcli.training.checkpoints import last_checkpoint, refuse_other_sharding
from sandcli.training.config import Hooks, LoggedStep, TrainingConfig, TrainingResult
from sandcli.training.errors import explained, refuse_broken
from sandcli.training.plan import plan_training
from sandcli.training.rows import IGNORED, prepare, tokenise
from sandcli.training.trainer import fit
from sandcli.training.weights import in_full_precision
from sandcli.training_settings import ComputeSettings, TrainingSettings
from tests.families import HOOKS, trained_spans
from tests.helpers import environment, make_run, perform, wait_until

pytestmark = pytest.mark.real

PREAMBLE = [Message("system", "You act in a text world.")]
AIMS = TrainingSettings(lora_rank=4, learning_rate=1e-3, epochs=4, batch_size=1)
COMPUTE = ComputeSettings(checkpoint_minutes=60)
SAVING = ComputeSettings(checkpoint_minutes=0)


def train(
    start: Path,
    trajectories: list[Trajectory],
    aims: TrainingSettings,
    work: Path,
    compute: ComputeSettings = COMPUTE,
    hooks: Hooks = HOOKS,
) -> TrainingResult:
    return fit(configured(start, aims, work, compute), trajectories, hooks)


def configured(start: Path, aims: TrainingSettings, work: Path, compute: ComputeSettings = COMPUTE) -> TrainingConfig:
    return TrainingConfig(start, PREAMBLE, aims, compute, 0, work, work / "log.jsonl")


def trajectory(name: str, steps: int) -> Trajectory:
    turns = [
        Step(
            thought=f"I continue with {n}." if n % 2 else "",
            action=f"push {n}",
            observation=f"Door {n} opens.",
            score=0.5,
        )
        for n in range(steps)
    ]
    return Trajectory(
        id=name,
        env="toy",
        task=Task(name="toy", variation=0),
        instruction="Open all doors.",
        steps=turns,
        reward=1.0,
        success=True,
        source="test",
    )


def test_learning_rate_rises_over_the_warm_up(tiny: Path, tmp_path: Path) -> None:
    rates = [step.learning_rate for step in train(tiny, [trajectory("a", 1)], replace(AIMS, warmup=0.5), tmp_path).log]
    assert rates[0] < max(rates) == pytest.approx(AIMS.learning_rate) and rates[-1] < max(rates)


def test_loss_covers_only_the_agents_turns_and_their_end_tokens(smollm: Path) -> None:
    tokenizer = load_tokenizer(smollm)
    row = tokenise(tokenizer, training_messages(PREAMBLE, trajectory("a", 3)))
    assert [tokenizer.decode(span) for span in trained_spans(row)] == [
        "Action: push 0<|im_end|>",
        "Thought: I continue with 1.\nAction: push 1<|im_end|>",
        "Action: push 2<|im_end|>",
    ]


def test_context_at_inference_equals_that_of_training(smollm: Path) -> None:
    tokenizer, whole = load_tokenizer(smollm), trajectory("a", 4)
    row = tokenise(tokenizer, training_messages(PREAMBLE, whole))
    for step in range(4):
        seen = prompt_ids(tokenizer, conversation(PREAMBLE, whole.instruction, whole.steps[:step]))
        assert row.input_ids[: len(seen)] == seen
        assert row.labels[len(seen)] != IGNORED and row.labels[len(seen) - 1] == IGNORED


def test_template_that_rewrites_earlier_turns_is_refused(smollm: Path) -> None:
    tokenizer = load_tokenizer(smollm)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content if loop.last else 'gone' }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert "gone" in render(tokenizer, training_messages(PREAMBLE, trajectory("a", 2)), answer=False)
    with pytest.raises(UsageError, match="rewrites earlier turns"):
        tokenise(tokenizer, training_messages(PREAMBLE, trajectory("a", 2)))


@pytest.mark.parametrize(("rule", "rows", "report"), [("drop", 1, "left out"), ("cut", 2, "cut to")])
def test_trajectories_that_are_too_long_are_reported(smollm: Path, rule: str, rows: int, report: str) -> None:
    tokenizer = load_tokenizer(smollm)
    limit = len(tokenise(tokenizer, training_messages(PREAMBLE, trajectory("short", 2))).input_ids) + 5
    prepared = prepare(tokenizer, PREAMBLE, [trajectory("short", 2), trajectory("long", 6)], limit, rule)
    assert len(prepared.rows) == rows
    assert list(prepared.too_long) == ["long"] and report in prepared.too_long["long"]
    assert all(row.tokens <= limit for row in prepared.rows)


@pytest.mark.parametrize(("method", "share"), [("full", 0.8), ("lora", 0.99)])
def test_training_learns_and_its_result_loads(tiny: Path, tmp_path: Path, method: str, share: float) -> None:
    aims = replace(AIMS, method=method, epochs=8, learning_rate=1e-2)
    trajectories = [trajectory("a", 3), trajectory("b", 4)]
    planned = plan_training(configured(tiny, aims, tmp_path), trajectories)
    result = train(tiny, trajectories, aims, tmp_path)
    assert result.finished and result.steps == 16 and result.size.rows == 2
    assert (planned.batches.steps, planned.size) == (result.steps, result.size)
    assert result.log[-1].loss < share * result.log[0].loss
    assert load_model(tmp_path / "result").num_parameters() == load_model(tiny).num_parameters()


def test_training_of_an_adapter_continues_it(tiny: Path, tmp_path: Path) -> None:
    aims = replace(AIMS, method="lora", epochs=1)
    train(tiny, [trajectory("a", 3)], aims, tmp_path / "first")
    result = train(tmp_path / "first" / "result", [trajectory("a", 3)], aims, tmp_path / "second")
    assert result.finished
    assert (tmp_path / "second" / "result" / "adapter_config.json").exists()


def test_killed_training_resumes_from_its_checkpoint(tiny: Path, tmp_path: Path) -> None:
    whole, _ = _trained(tiny, tmp_path / "whole")
    child = subprocess.Popen([sys.executable, __file__, str(tiny), str(tmp_path / "killed")])
    checkpoints = tmp_path / "killed" / "checkpoints"
    wait_until(lambda: (checkpoints / "checkpoint-2" / "complete").exists())
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    kept = last_checkpoint(checkpoints)
    assert kept is not None and not (tmp_path / "killed" / "result").exists()
    resumed, started_at = _trained(tiny, tmp_path / "killed")
    assert started_at == int(kept.name.split("-")[1])
    assert resumed.finished and resumed.steps == whole.steps
    assert [entry.step for entry in resumed.log] == [entry.step for entry in whole.log]
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-4)
    written = (tmp_path / "killed" / "log.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=LoggedStep) for line in written] == resumed.log


def test_set_number_of_steps_is_resumed_in_the_middle_of_an_epoch(tiny: Path, tmp_path: Path) -> None:
    aims, trajectories = replace(AIMS, max_steps=5), [trajectory("a", 3), trajectory("b", 4)]
    whole = train(tiny, trajectories, aims, tmp_path / "whole")
    assert (whole.finished, [entry.epoch for entry in whole.log]) == (True, [0.5, 1.0, 1.5, 2.0, 2.5])
    stops = iter([False, False, True])
    stopped = train(tiny, trajectories, aims, tmp_path / "two", hooks=HOOKS._replace(stop=lambda: next(stops)))
    assert (stopped.finished, stopped.steps) == (False, 3)
    resumed = train(tiny, trajectories, aims, tmp_path / "two")
    assert (resumed.finished, resumed.steps, resumed.size) == (True, 5, whole.size)
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-4)
    assert [e.learning_rate for e in resumed.log] == pytest.approx([e.learning_rate for e in whole.log])


def losses(result: TrainingResult) -> list[float]:
    return [entry.loss for entry in result.log]


def _trained(tiny: Path, work: Path) -> tuple[TrainingResult, int]:
    done_at_start: list[int] = []
    hooks = HOOKS._replace(planned=lambda total, done: done_at_start.append(done))
    trajectories = [trajectory("a", 3), trajectory("b", 4)]
    result = train(tiny, trajectories, AIMS, work, SAVING, hooks)
    return result, done_at_start[0]


def test_loggers_receive_every_step(tiny: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(tiny, [trajectory("a", 3)], AIMS, tmp_path, ComputeSettings(report_to=["tensorboard"]))
    events = EventAccumulator(str(tmp_path / "log" / "tensorboard")).Reload()
    for name in ("loss", "learning_rate", "tokens_a_second", "memory_gib"):
        seen = [event.value for event in events.Scalars(f"train/{name}")]
        assert seen == pytest.approx([getattr(entry, name) for entry in result.log], rel=1e-5)
    assert [entry.epoch for entry in result.log] == [1.0, 2.0, 3.0, 4.0]


def test_missing_and_unknown_loggers_are_named(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="names trackio, which is not installed"):
        train(tiny, [trajectory("a", 3)], AIMS, tmp_path, ComputeSettings(report_to=["trackio"]))
    with pytest.raises(UsageError, match="names 'tensorbord', which is not a logger") as caught:
        train(tiny, [trajectory("a", 3)], AIMS, tmp_path, ComputeSettings(report_to=["tensorbord"]))
    assert caught.value.fix == "did you mean tensorboard?"


def test_adapter_of_another_rank_is_refused(tiny: Path, tmp_path: Path) -> None:
    aims = replace(AIMS, method="lora", epochs=1)
    train(tiny, [trajectory("a", 3)], aims, tmp_path / "first")
    start = tmp_path / "first" / "result"
    with pytest.raises(UsageError, match=f"adapter of rank {aims.lora_rank}, not 64"):
        train(start, [trajectory("a", 3)], replace(aims, lora_rank=64), tmp_path / "second")


def test_trained_weights_are_put_into_full_precision(tiny: Path) -> None:
    model = load_model(tiny).to(torch.bfloat16).requires_grad_(False)
    model.lm_head.weight.requires_grad = True
    in_full_precision(model)
    assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}
    assert {weight.dtype for weight in model.parameters() if not weight.requires_grad} == {torch.bfloat16}


def test_trajectory_without_steps_is_left_out_and_reported(tiny: Path, tmp_path: Path) -> None:
    result = train(tiny, [trajectory("none", 0), trajectory("a", 3)], replace(AIMS, epochs=1), tmp_path)
    assert result.size.rows == 1
    assert result.size.too_long == {"none": "left out: no step"}


def test_sharded_checkpoint_is_refused_by_a_training_without_shards(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model_fsdp.bin").touch()
    refuse_other_sharding(tmp_path, sharded=True)
    with pytest.raises(PrerequisiteError, match=r"with trainer\.shard on several GPUs"):
        refuse_other_sharding(tmp_path, sharded=False)


def test_full_gpu_is_reported_with_its_fix(tmp_path: Path) -> None:
    full = pytest.raises(PrerequisiteError, match="the GPU's memory is full: CUDA out of memory")
    with full as caught, explained(tmp_path):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")
    assert "trainer.shard" in caught.value.fix


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_is_reported_for_every_error_code(tmp_path: Path, number: int) -> None:
    with pytest.raises(PrerequisiteError, match="could not be written to"), explained(tmp_path):
        raise OSError(number, os.strerror(number))


def test_gradient_that_is_not_a_number_ends_the_training_and_keeps_the_last_checkpoint(
    tiny: Path, tmp_path: Path
) -> None:
    aims = replace(AIMS, learning_rate=1e30)
    with pytest.raises(SandError, match="the gradient is not a number at step 2; the checkpoint of step 1 is kept"):
        train(tiny, [trajectory("a", 3)], aims, tmp_path, SAVING)
    kept = last_checkpoint(tmp_path / "checkpoints")
    assert kept is not None and kept.name == "checkpoint-1"
    assert not (tmp_path / "result").exists()


def test_checkpoint_that_led_to_a_loss_that_is_not_a_number_is_removed(tmp_path: Path) -> None:
    for step in (1, 2):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "complete").touch()
    values = {"epoch": 1.0, "learning_rate": 1e-5, "tokens_a_second": 1.0, "memory_gib": 1.0}
    good = LoggedStep(step=3, loss=0.1, gradient_norm=0.1, **values)
    refuse_broken(good, tmp_path)
    with pytest.raises(SandError, match="the loss is not a number at step 3; the checkpoint of step 1 is kept"):
        refuse_broken(msgspec.structs.replace(good, loss=float("nan")), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


FLAGS = {"temperature": 0.6, "top_p": 0.9}
"""Sampling flags without do_sample, as Llama-2-chat and Vicuna were published."""


def with_flags(model: Path, folder: Path, name: str) -> Path:
    """A copy of a model with `FLAGS` in the file `name`."""
    shutil.copytree(model, folder)
    published = json.loads((folder / name).read_text())
    if name == "config.json":
        (folder / "generation_config.json").unlink()  # it would hide the flags of config.json
    (folder / name).write_text(json.dumps(published | FLAGS))
    return folder


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_model_that_cannot_be_saved_is_refused_before_the_first_step(tiny: Path, tmp_path: Path, name: str) -> None:
    base, steps = with_flags(tiny, tmp_path / "base", name), list[int]()
    hooks = HOOKS._replace(stepped=lambda: steps.append(1))
    with pytest.raises(UsageError, match=rf"base/{name} has invalid generation flags: temperature, top_p$") as caught:
        train(base, [trajectory("a", 3)], AIMS, tmp_path / "work", hooks=hooks)
    assert "do_sample" in caught.value.fix and steps == []


def test_adapter_of_a_model_that_cannot_be_saved_is_trained(tiny: Path, tmp_path: Path) -> None:
    base = with_flags(tiny, tmp_path / "base", "generation_config.json")
    result = train(base, [trajectory("a", 3)], replace(AIMS, method="lora", epochs=1), tmp_path / "work", SAVING)
    assert result.finished
    assert (tmp_path / "work" / "result" / "adapter_config.json").exists()


def test_full_disk_is_reported_and_the_next_attempt_succeeds(tiny: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", model__base=str(tiny), sft__epochs=1, trainer__checkpoint_minutes=0.0)
    perform("collect", run, limit=2)
    command = [sys.executable, "-m", "sandcli", "sft", "--run", str(run), "--limit", "2"]
    full = subprocess.run(command, env=environment(), capture_output=True, text=True, preexec_fn=small_files)
    assert full.returncode == 3, full.stderr
    assert "could not be written to" in full.stderr and "free some space" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list((run / "sft.part" / "checkpoints").glob("checkpoint-*"))
    assert subprocess.run(command, env=environment()).returncode == 0


def small_files() -> None:
    """Limit files of this process to a megabyte: a checkpoint of the tiny model does not fit."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))


def test_trajectory_without_thoughts_trains_actions_only(smollm: Path) -> None:
    bare = msgspec.structs.replace(trajectory("a", 1), steps=[trajectory("a", 1).steps[0]])
    row = tokenise(load_tokenizer(smollm), training_messages(PREAMBLE, bare))
    trained = [label for label in row.labels if label != IGNORED]
    assert load_tokenizer(smollm).decode(trained) == "Action: push 0<|im_end|>"


def test_saved_model_has_the_mode_of_other_new_files(tiny: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        train(tiny, [trajectory("a", 1)], replace(AIMS, epochs=1), tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "result").iterdir()}
    assert "model.safetensors" in modes and set(modes.values()) == {0o640}


@pytest.mark.parametrize("seed", [-1, 2**40])
def test_seed_of_any_size_is_taken(tiny: Path, tmp_path: Path, seed: int) -> None:
    config = configured(tiny, replace(AIMS, method="lora", epochs=1), tmp_path)._replace(seed=seed)
    assert fit(config, [trajectory("a", 1)], HOOKS).finished


def test_tokenizer_without_end_and_pad_is_trained(tiny: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": None, "pad_token": None}))
    trajectories = [trajectory("a", 1), trajectory("b", 2), trajectory("c", 1)]
    result = train(base, trajectories, replace(AIMS, epochs=1, batch_size=2), tmp_path / "work")
    assert result.finished
    assert load_tokenizer(tmp_path / "work" / "result").eos_token is None


def test_adapter_names_its_base_so_that_any_machine_finds_it(smollm: Path, tiny: Path, tmp_path: Path) -> None:
    train(tiny, [trajectory("a", 1)], replace(AIMS, method="lora", epochs=1), tmp_path / "own")
    written = json.loads((tmp_path / "own" / "result" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(tiny)
    snapshot = tmp_path / "hub" / "models--sand--tiny-1b" / "snapshots" / "0123abcd"
    assert portable_name(snapshot) == ("sand/tiny-1b", "0123abcd")
    assert portable_name(smollm) == ("smollm2-135m-instruct", None)


def test_model_with_code_of_its_own_is_trained_if_that_is_trusted(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    own = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    (base / "config.json").write_text(json.dumps(config | {"model_type": "mine", "auto_map": own}))
    (base / "mine.py").write_text(_MINE)
    spec = configured(base, replace(AIMS, epochs=1), tmp_path)
    with pytest.raises(UsageError, match="needs code that comes with it, which is not run"):
        fit(spec, [trajectory("a", 1)], HOOKS)
    assert fit(spec._replace(trust_code=True), [trajectory("a", 1)], HOOKS).finished
    with pytest.raises(UsageError, match="needs code that comes with it, which is not run"):
        load_model(tmp_path / "result")
    assert type(load_model(tmp_path / "result", trust_code=True)).__name__ == "Model"


_MINE = """
from transformers import LlamaConfig, LlamaForCausalLM

class Config(LlamaConfig):
    model_type = "mine"

class Model(LlamaForCausalLM):
    config_class = Config
"""


if __name__ == "__main__":
    _trained(Path(sys.argv[1]), Path(sys.argv[2]))
