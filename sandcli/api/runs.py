"""Functions for whole runs: to make one, to run a method or an experiment, and to export data."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from sandcli import parameters as given
from sandcli.arguments import RunLike, as_run, common
from sandcli.verb import Verb

if TYPE_CHECKING:
    from sandcli.config import Scalar
    from sandcli.core.run import Run
    from sandcli.core.stage import Summary


def init(
    run: RunLike,
    *,
    previous: RunLike | None = None,
    d_exp: RunLike | None = None,
    preset: str | None = None,
    protocol: str | None = None,
    settings: "Mapping[str, Scalar] | None" = None,
) -> "Run":
    """Make a run directory with its sand.toml; with `previous`, the iteration after that run.

    With `d_exp`, D_exp is taken from that run instead of being collected.

    `settings` are by `table.key`, such as `{"sample.n": 5}`; they override those of the preset and the protocol. Raises
    `UsageError` for a wrong setting or if there is a run already, `PrerequisiteError` if the previous run is not
    finished.
    """
    from sandcli.new_run import start_run

    made = as_run(run)
    earlier, shared = (as_run(other).root if other is not None else None for other in (previous, d_exp))
    start_run(made.root, earlier, settings or {}, preset, protocol, shared)
    return made


def export(
    run: RunLike,
    file: "str | PathLike[str]",
    *,
    data: str = "deliberations",
    form: str | None = None,
    min_reward: float | None = None,
    only_deliberated: bool = False,
) -> int:
    """Write trajectories or pairs as other trainers read them; returns the number of rows. See `sandcli.exports`.

    `form` is `messages` if it is not given, and `preference` for pairs.
    """
    from sandcli.exports import Wanted, write_rows
    from sandcli.perform import context_of

    chosen = form or ("preference" if data == "pairs" else "messages")
    return write_rows(context_of(as_run(run), {}), Path(file), Wanted(data, chosen, min_reward, only_deliberated))


@Verb
async def iterate(
    run: RunLike,
    *,
    iterations: Annotated[int, Meta(ge=1, description="Iterations of the method (paper: 3).")] = 3,
    until: Annotated[str | None, Meta(description="Stop after this stage of the last iteration.")] = None,
    engine: given.EngineKind = None,
    workers: given.Workers = None,
    cluster: given.Cluster = None,
    dry_run: given.DryRun = False,
    gpus: Annotated[
        int | None,
        Meta(
            ge=1,
            description="With --dry-run: estimate the hours of each stage on N GPUs from earlier runs on this machine.",
        ),
    ] = None,
) -> "list[Summary]":
    """Run Algorithm 1, or a baseline: every stage of the first iteration, then the next ones, each in a new directory.

    Stopped at any point, the same call resumes there. The iteration after `runs/it1` goes into `runs/it2`. Ends early
    if units of a stage failed.
    """
    from sandcli.core.stage import Options
    from sandcli.errors import UsageError
    from sandcli.perform import Pipeline

    if gpus and not dry_run:
        raise UsageError("--gpus only estimates", "add --dry-run")
    asked = Options(dry_run=dry_run, gpus=gpus)
    return await Pipeline(common(engine, workers, None, cluster), iterations, until, asked).run(as_run(run))


@Verb
async def experiment(
    plan: "str | PathLike[str]",
    run: RunLike,
    *,
    seeds: given.Seeds = None,
    only: given.OnlySeed = None,
    engine: given.EngineKind = None,
    workers: given.Workers = None,
) -> "Summary":
    """Make every run of a plan: each arm with each seed, from one D_exp.

    Runs share whatever is equal, such as the SFT model of a seed. Stopped at any point, the same call resumes there.
    Ends early if units of a stage failed. Returns the summary of the last stage.
    """
    from sandcli.experiments import Experiment

    return await Experiment(as_run(run).root, Path(plan), seeds, only, common(engine, workers, None)).make()
