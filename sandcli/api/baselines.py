"""A function for each stage of the baselines: see docs/baselines.md."""

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from sandcli import parameters as given
from sandcli.arguments import RunLike, common, do, options, trained_by
from sandcli.verb import Verb

if TYPE_CHECKING:
    from sandcli.core.stage import Summary


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
