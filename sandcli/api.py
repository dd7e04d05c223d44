"""The library: one function for each command, callable from Python, from a notebook, and awaitable.

`sample(run, n=5)` blocks; `await sample.aio(run, n=5)` runs in the caller's event loop. The command line takes the
names, types, bounds and help of its options from these signatures. Nothing heavy is imported before a call.
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from sandcli import parameters as given
from sandcli.arguments import RunLike, as_run, common, do, found, listed, options, played, rule, trained_by
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
async def collect(
    run: RunLike,
    *,
    source: given.Source = None,
    strict: Annotated[bool, Meta(description="Accept a recorded trajectory only if it replays word for word.")] = False,
    as_recorded: Annotated[
        bool, Meta(description="Keep the recorded texts instead of the replay's; for training only.")
    ] = False,
    thoughts: Annotated[str | None, Meta(description="base: the base model writes them; none: no thoughts.")] = None,
    expert: given.Expert = None,
    limit: given.Limit = None,
    engine: given.EngineKind = None,
    workers: given.Workers = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Make D_exp: from the world's own expert, or from recorded trajectories, each verified by replay."""
    flags = {
        "collect.source": found(source),
        "collect.rows": rule(strict, as_recorded),
        "collect.thoughts": thoughts,
        "collect.expert": expert,
        **common(engine, workers, seed),
    }
    return await do("collect", run, flags, limit, options(force, accept_stale, accept_failures, dry_run))


@Verb
async def sft(
    run: RunLike,
    *,
    limit: given.Limit = None,
    nproc: given.Processes = None,
    nodes: given.Nodes = None,
    first_node: given.FirstNode = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Fine-tune the base model on D_exp: the policy before iteration 1."""
    flags = trained_by(nproc, nodes, first_node, seed)
    return await do("sft", run, flags, limit, options(force, accept_stale, False, dry_run))


@Verb
async def plan(
    run: RunLike,
    *,
    n: Annotated[int | None, Meta(ge=1, description="Plans of every training task.")] = None,
    temperature: Annotated[float | None, Meta(ge=0, description="Sampling temperature.")] = None,
    limit: given.Limit = None,
    engine: given.EngineKind = None,
    cluster: given.Cluster = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Let a planner advise the policy on every training task, several times: what MPO compares."""
    flags = {"plan.n": n, "plan.temperature": temperature, **common(engine, None, seed, cluster)}
    return await do("plan", run, flags, limit, options(force, accept_stale, accept_failures, dry_run))


@Verb
async def explore(
    run: RunLike,
    *,
    n: Annotated[int | None, Meta(ge=1, description="Episodes of every training task.")] = None,
    temperature: Annotated[float | None, Meta(ge=0, description="Sampling temperature.")] = None,
    limit: given.Limit = None,
    engine: given.EngineKind = None,
    workers: given.Workers = None,
    cluster: given.Cluster = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Let the policy play the training tasks, and make the data of baselines from its successes."""
    flags = {"explore.n": n, "explore.temperature": temperature, **common(engine, workers, seed, cluster)}
    return await do("explore", run, flags, limit, options(force, accept_stale, accept_failures, dry_run))


@Verb
async def knowledge(
    run: RunLike,
    *,
    temperature: Annotated[float | None, Meta(ge=0, description="Temperature of the policy.")] = None,
    limit: given.Limit = None,
    engine: given.EngineKind = None,
    cluster: given.Cluster = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Let the policy write task knowledge, from the expert's and its own episodes, and state knowledge (WKM)."""
    flags = {"plan.temperature": temperature, **common(engine, None, seed, cluster)}
    return await do("knowledge", run, flags, limit, options(force, accept_stale, accept_failures, dry_run))


@Verb
async def wkm(
    run: RunLike,
    *,
    limit: given.Limit = None,
    nproc: given.Processes = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Train the world-knowledge model on what the policy wrote (WKM)."""
    flags = {"trainer.nproc": nproc, **common(None, None, seed)}
    return await do("wkm", run, flags, limit, options(force, accept_stale, False, dry_run))


@Verb
async def sample(
    run: RunLike,
    *,
    n: Annotated[int | None, Meta(ge=1, description="Turns sampled at every step (paper: 5).")] = None,
    temperature: given.Temperature = None,
    limit: given.Limit = None,
    engine: given.EngineKind = None,
    cluster: given.Cluster = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Sample N turns at every expert step and flag the steps where actions disagree (Eq. 4)."""
    flags = {"sample.n": n, "sample.temperature": temperature, **common(engine, None, seed, cluster)}
    return await do("sample", run, flags, limit, options(force, accept_stale, accept_failures, dry_run))


@Verb
async def rollout(
    run: RunLike,
    *,
    temperature: given.Temperature = None,
    limit: given.Limit = None,
    engine: given.EngineKind = None,
    workers: given.Workers = None,
    cluster: given.Cluster = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Execute every candidate of a flagged step in the real environment, to the end of the episode."""
    flags = {"rollout.temperature": temperature, **common(engine, workers, seed, cluster)}
    return await do("rollout", run, flags, limit, options(force, accept_stale, accept_failures, dry_run))


@Verb
async def critique(
    run: RunLike,
    *,
    limit: given.Limit = None,
    engine: given.EngineKind = None,
    cluster: given.Cluster = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Let the base model criticise every candidate from what its rollout led to (Eq. 5)."""
    asked = options(force, accept_stale, accept_failures, dry_run)
    return await do("critique", run, common(engine, None, seed, cluster), limit, asked)


@Verb
async def synthesize(
    run: RunLike,
    *,
    limit: given.Limit = None,
    engine: given.EngineKind = None,
    cluster: given.Cluster = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Let the base model write one deliberation for each flagged step (Eq. 6), and make D_delib."""
    asked = options(force, accept_stale, accept_failures, dry_run)
    return await do("synthesize", run, common(engine, None, seed, cluster), limit, asked)


@Verb
async def train(
    run: RunLike,
    *,
    limit: given.Limit = None,
    nproc: given.Processes = None,
    nodes: given.Nodes = None,
    first_node: given.FirstNode = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Fine-tune the policy on D_delib, or on the data of a baseline: the next policy."""
    flags = trained_by(nproc, nodes, first_node, seed)
    return await do("train", run, flags, limit, options(force, accept_stale, False, dry_run))


@Verb
async def pairs(
    run: RunLike,
    *,
    source: Annotated[
        str | None, Meta(description="What the expert is compared with: explored (episodes), or rollouts (with eto).")
    ] = None,
    limit: given.Limit = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Make preference pairs: the expert against the policy, in a whole trajectory or from one step on."""
    asked = options(force, accept_stale, accept_failures, dry_run)
    return await do("pairs", run, {"pairs.source": source}, limit, asked)


@Verb
async def prefer(
    run: RunLike,
    *,
    limit: given.Limit = None,
    nproc: given.Processes = None,
    nodes: given.Nodes = None,
    first_node: given.FirstNode = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Train the policy, or the planner, to prefer the better side of each pair (DPO): the next one of a baseline."""
    flags = trained_by(nproc, nodes, first_node, seed)
    return await do("prefer", run, flags, limit, options(force, accept_stale, False, dry_run))


@Verb
async def evaluate(
    run: RunLike,
    *,
    panel: given.Panel = None,
    splits: given.Splits = None,
    models: given.Models = None,
    deliberation: Annotated[str | None, Meta(description="Comma-separated list of free, never, always.")] = None,
    n: Annotated[int | None, Meta(ge=1, description="Episodes of every task; several need a temperature.")] = None,
    temperature: Annotated[float | None, Meta(ge=0, description="Temperature of the agent; 0: greedy.")] = None,
    limit: given.Tasks = None,
    engine: given.EngineKind = None,
    workers: given.Workers = None,
    cluster: given.Cluster = None,
    seed: given.Seed = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Run episodes on held-out tasks: reward, success, deliberation rate, tokens; with several a task, pass@k."""
    flags = {
        **played(panel, splits, models, common(engine, workers, seed, cluster)),
        "eval.deliberation": listed(deliberation),
        "eval.n": n,
        "eval.temperature": temperature,
    }
    return await do("eval", run, flags, limit, options(force, accept_stale, accept_failures, dry_run))


@Verb
async def counterfactual(
    run: RunLike,
    *,
    panel: given.Panel = None,
    splits: given.Splits = None,
    models: given.Models = None,
    limit: given.Tasks = None,
    engine: given.EngineKind = None,
    workers: given.Workers = None,
    cluster: given.Cluster = None,
    force: given.Force = False,
    accept_stale: given.AcceptStale = False,
    accept_failures: given.AcceptFailures = False,
    dry_run: given.DryRun = False,
) -> "Summary":
    """Take every deliberated step of the evaluated episodes again, without deliberating: what changes?"""
    asked = options(force, accept_stale, accept_failures, dry_run)
    flags = played(panel, splits, models, common(engine, workers, None, cluster))
    return await do("counterfactual", run, flags, limit, asked)


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
    from sandcli.experiment import Experiment

    return await Experiment(as_run(run).root, Path(plan), seeds, only, common(engine, workers, None)).make()
