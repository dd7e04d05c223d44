"""Trajectories as masked tokens.

The loss covers the agent's turns and their end tokens only. Conversations are tokenised piece by piece, and the pieces
are checked against the tokens of the whole text: templates need no special tags, and nothing is cut silently.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sandcli.agent.conversation import training_messages
from sandcli.engines.configs import stop_ids
from sandcli.engines.templates import render
from sandcli.engines.tokens import encode
from sandcli.errors import UsageError
from sandcli.messages import Message
from sandcli.records import Trajectory

IGNORED = -100
"""The label of a token that carries no loss."""


class TrainingRow(NamedTuple):
    """One trajectory for the trainer: token ids, and labels that are `IGNORED` outside the agent's turns."""

    input_ids: list[int]
    labels: list[int]


class Prepared(NamedTuple):
    """Rows to train on, and what happened to trajectories that are too long or empty, by id."""

    rows: list[TrainingRow]
    too_long: dict[str, str]


def tokenise(tokenizer: Any, messages: Sequence[Message], preamble: int = 0) -> TrainingRow:
    """A conversation with loss on the assistant's turns, end tokens included, but not on its first `preamble` messages.

    Raises `UsageError` if the template rewrites earlier turns, or if the tokens of a turn depend on what follows: at
    inference the policy would never see the context that it was trained on.
    """
    ids: list[int] = []
    labels: list[int] = []
    done = ""
    for number, message in enumerate(messages):
        if message.role != "assistant" or number < preamble:
            continue
        opened = render(tokenizer, messages[:number], answer=True)
        closed = render(tokenizer, messages[: number + 1], answer=False)
        said = closed[len(opened) :].rstrip("\n")
        if not opened.startswith(done) or not closed.startswith(opened + message.content):
            raise UsageError("the chat template rewrites earlier turns", "use a model whose template keeps them")
        context, turn = encode(tokenizer, opened[len(done) :]), encode(tokenizer, said)
        ids += context + turn
        labels += [IGNORED] * len(context) + turn
        done = opened + said
    if ids != encode(tokenizer, done):
        raise UsageError(
            "the pieces of a conversation are not the tokens of the whole",
            "use a model whose chat template separates turns with special tokens",
        )
    return TrainingRow(ids, labels)


def prepare(
    tokenizer: Any, preamble: Sequence[Message], trajectories: Sequence[Trajectory], limit: int, too_long: str
) -> Prepared:
    """All rows. A trajectory of more than `limit` tokens is dropped, or loses whole steps from its end."""
    rows: list[TrainingRow] = []
    report: dict[str, str] = {}
    for trajectory in trajectories:
        row = training_row(tokenizer, preamble, trajectory)
        tokens, ends = len(row.input_ids), _ends(row)
        if 0 < tokens <= limit:
            rows.append(row)
            continue
        kept = sum(end <= limit for end in ends) if too_long == "cut" else 0
        if kept:
            rows.append(TrainingRow(row.input_ids[: ends[kept - 1]], row.labels[: ends[kept - 1]]))
        what = f"cut to {kept} of {len(ends)} steps" if kept else "left out"
        report[trajectory.id] = f"{what}: {tokens} tokens, and {limit} are allowed" if ends else "left out: no step"
    return Prepared(rows, report)


def _ends(row: TrainingRow) -> list[int]:
    """The position after each of the agent's turns."""
    after = [*row.labels, IGNORED][1:]
    return [n for n, (label, next_) in enumerate(zip(row.labels, after, strict=True), 1) if next_ == IGNORED != label]


def training_row(tokenizer: Any, preamble: Sequence[Message], trajectory: Trajectory) -> TrainingRow:
    """A trajectory as it is trained on. Raises what `tokenise` does."""
    return tokenise(tokenizer, training_messages(preamble, trajectory), len(preamble))


def refuse_endless(tokenizer: Any, row: TrainingRow, folder: Path) -> None:
    """Raise `UsageError` if turns end with a token at which the model in `folder` does not stop.

    The trained policy would generate up to its token limit every time.
    """
    end, stops = row.input_ids[-1], stop_ids(folder, tokenizer)
    if end not in stops:
        known = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(sorted(stops)))) or "nowhere"
        raise UsageError(
            f"the template of {folder} ends a turn with {tokenizer.decode([end])!r}, and the model stops at {known}",
            "use an instruction-tuned model, or add the token's id to eos_token_id in its generation_config.json",
        )
