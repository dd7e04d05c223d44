"""A function for each stage of SAND, and for its evaluation."""

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from sandcli import parameters as given
from sandcli.arguments import RunLike, common, do, found, listed, options, played, rule, trained_by
from sandcli.verb import Verb

if TYPE_CHECKING:
    from sandcli.core.stage import Summary


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
