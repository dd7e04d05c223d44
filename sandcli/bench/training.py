"""`sand bench train`: the training of `sand sft` against a plain TRL script, on the same rows, in one run.

The plain script follows TRL's documentation: conversations as messages, a chat template that marks the assistant's
turns, `assistant_only_loss`, one conversation at a time. Both train the same model for the same number of steps; the
first step of each is not counted.
"""

import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from sandcli.agent.conversation import training_messages
from sandcli.core.context import Context
from sandcli.engines.base import Model
from sandcli.engines.loading import load_model
from sandcli.engines.templates import render
from sandcli.engines.tokens import load_tokenizer
from sandcli.errors import UsageError
from sandcli.messages import Message
from sandcli.records import Trajectory
from sandcli.training.config import Hooks, TrainingConfig
from sandcli.training.plan import plan_training
from sandcli.training.rows import IGNORED, TrainingRow
from sandcli.training.trainer import fit
from sandcli.training_settings import ComputeSettings, TrainingSettings

_MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
)
"""The template of the ChatML family, with the marks that TRL needs."""


_AIMS = TrainingSettings(epochs=1, batch_size=1)


class Compared(NamedTuple):
    """Tokens per second of both, and whether both put the loss on the same tokens."""

    ours: float
    plain: float
    ratio: float
    masks_identical: bool


def bench_training(context: Context, steps: int) -> Compared:
    """Train the base model of a run on its expert trajectories, both ways. Raises `UsageError` if there are too few."""
    trajectories = list(islice(context.run.trajectories(), steps))
    if len(trajectories) < max(2, steps):
        raise UsageError(f"{steps} steps need as many trajectories", "collect more, or lower --steps")
    base, preamble = context.base_model(), context.preamble
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "ours"
        config = TrainingConfig(
            base.folder, preamble, _AIMS, ComputeSettings(), 0, work, work / "log.jsonl", base.trust_code
        )
        plan = plan_training(config, trajectories)
        if plan.size.too_long:
            raise UsageError(
                f"{len(plan.size.too_long)} trajectories are too long for the model", "collect shorter tasks"
            )
        conversations = [training_messages(preamble, trajectory) for trajectory in trajectories]
        ended, theirs = _plain(base, plan.tokenizer, conversations, Path(folder) / "plain")
        plain = _rate([row.tokens for row in plan.rows], ended)
        ours = _rate(plan.batches.tokens, _ours(config, trajectories))
    rows = [row for row in plan.rows if isinstance(row, TrainingRow)]
    same = all(_same(*pair) for pair in zip(rows, theirs, strict=True))
    return Compared(round(ours, 1), round(plain, 1), round(ours / plain, 2), same)


def _rate(tokens: Sequence[int], ended: Sequence[float]) -> float:
    """Tokens per second from the end of the first step to the end of the last."""
    return sum(tokens[1:]) / (ended[-1] - ended[0])


def _same(ours: TrainingRow, plain: TrainingRow) -> bool:
    """Whether two rows train the same tokens. What the template adds after the last turn carries no loss."""
    length = len(ours.input_ids)
    rest = set(plain.labels[length:])
    return ours == TrainingRow(plain.input_ids[:length], plain.labels[:length]) and rest <= {IGNORED}


def _ours(config: TrainingConfig, trajectories: Sequence[Trajectory]) -> list[float]:
    """When each step ended."""
    ended: list[float] = []
    hooks = Hooks(
        sized=lambda size: None,
        planned=lambda total, done: None,
        stepped=lambda: ended.append(time.monotonic()),
        stop=lambda: False,
    )
    fit(config, trajectories, hooks)
    return ended


def _plain(
    base: Model, tokenizer: Any, conversations: Sequence[Sequence[Message]], work: Path
) -> tuple[list[float], list[TrainingRow]]:
    """When each step ended, and TRL's own rows of the conversations."""
    for messages in conversations:
        marked = tokenizer.apply_chat_template(_dicts(messages), chat_template=_MARKED, tokenize=False)
        if marked != render(tokenizer, messages, answer=False):
            raise UsageError("the plain script knows the ChatML template only", "use the embedded model")
    gpu, watch = torch.cuda.is_available(), _Stopwatch()
    config = SFTConfig(
        output_dir=str(work),
        chat_template_path=_template_file(work),
        assistant_only_loss=True,
        max_length=None,
        learning_rate=1e-5,
        num_train_epochs=1,
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        bf16=gpu,
        use_cpu=not gpu,
        gradient_checkpointing=gpu,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    if config.n_gpu > 1:
        config._n_gpu = 1  # one GPU for each process, like ours
    trainer = SFTTrainer(
        model=load_model(base.folder, training=True, trust_code=base.trust_code),
        args=config,
        processing_class=load_tokenizer(base.folder, base.trust_code),
        train_dataset=Dataset.from_list([{"messages": _dicts(messages)} for messages in conversations]),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)  # stdout is for the result
    rows = [TrainingRow(list(row["input_ids"]), list(row["labels"])) for row in trainer.train_dataset]
    trainer.train()
    return watch.ended, rows


def _template_file(work: Path) -> str:
    work.mkdir(parents=True)
    (work / "marked.jinja").write_text(_MARKED)
    return str(work / "marked.jinja")


def _dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [message._asdict() for message in messages]


class _Stopwatch(TrainerCallback):  # type: ignore[misc]
    """When each step ended."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ended.append(time.monotonic())
