"""Do critics' verdicts agree with the rewards?"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, get_args

from sandcli.core.run import Run
from sandcli.method.critique import Case, Verdict, verdict_by_reward, verdict_of
from sandcli.records import Critique
from sandcli.report.estimates import Estimate, share
from sandcli.report.sheets import Sheet, SheetRow
from sandcli.stages.inputs import rollout_cases

Compared = Literal["expert's", "less", "equal", "more"]
"""A candidate that is the expert's action, or one whose reward is less than, equal to or more than the expert's."""


class Opinion(NamedTuple):
    """A critique beside the rewards: its verdict (empty if it gives none), and the verdict of the rewards."""

    trajectory: str
    written: str
    by_reward: Verdict
    compared: Compared


class Critics(NamedTuple):
    """How often each opinion occurs in a run.

    `outdated` counts critiques that were written on other rollouts. `given`: the rewards gave the verdicts
    (`critique.verdict`).
    """

    opinions: Mapping[Opinion, int]
    outdated: int = 0
    given: bool = False


def read_critics(run: Run) -> Critics | None:
    """The critiques of a run; None if it has none. Raises `SandError` if an artifact is missing or damaged."""
    if not run.artifact("critique").path.exists():
        return None
    critiques, made = run.critiques(), run.artifact("critique").manifest()
    opinions: Counter[Opinion] = Counter()
    outdated = 0
    for case in rollout_cases(run):
        for critique in critiques.having([case.rollout.key]):
            fresh = (critique.action, critique.reward) == (case.rollout.action, case.rollout.reward)
            outdated += not fresh
            opinions.update([opinion(case, critique)] if fresh else [])
    given = made is not None and made.identity.settings.get("critique.verdict") == "reward"
    return Critics(opinions, outdated, given) if opinions else None


def opinion(case: Case, critique: Critique) -> Opinion:
    """What a critique says, and what the rewards say."""
    own, experts = case.rollout.reward, case.at.trajectory.reward
    compared: Compared = "less" if own < experts else "more" if own > experts else "equal"
    return Opinion(
        trajectory=case.rollout.id,
        written=verdict_of(critique.critique),
        by_reward=verdict_by_reward(case),
        compared="expert's" if case.rollout.expert else compared,
    )


def critics_sheet(found: Mapping[tuple[str, str], Critics]) -> Sheet | None:
    """Verdicts against rewards, by base model and name of the run. None without critiques."""
    notes = [
        "One critique for each candidate. expert's: the candidate is the expert's action. less, equal, more: another "
        "candidate, whose rollout earned less than, as much as or more than the expert's.",
        "agreement: share of the verdicts on other candidates that are those of the rewards, as critique.verdict = "
        '"reward" gives them. advanced: a better score than before the candidate, and at least the expert\'s reward; '
        "otherwise hindered if the world ended the episode, and did not affect if it did not.",
        "Intervals: 95 % percentile bootstrap over trajectories.",
        *(note for (_, run), critics in found.items() for note in _notes(run, critics)),
    ]
    rows = [row for (group, run), critics in found.items() for row in _rows(group, run, critics)]
    columns = ["verdict", *get_args(Compared), "agreement, %"]
    return Sheet("critics", "Critics' verdicts against the rewards", "run", columns, rows, notes) if rows else None


def _rows(group: str, run: str, critics: Critics) -> list[SheetRow]:
    found = []
    for name, verdicts in {**{v: (v,) for v in get_args(Verdict)}, "none given": ("",), "all": None}.items():
        own = {o: n for o, n in critics.opinions.items() if verdicts is None or o.written in verdicts}
        counts = [sum(n for o, n in own.items() if o.compared == compared) for compared in get_args(Compared)]
        found.append(SheetRow(group, run, [name, *counts, agreement(own)]))
    return found


def agreement(opinions: Mapping[Opinion, int]) -> Estimate | None:
    """The share, in per cent, of the verdicts on other candidates that are those of the rewards; None without any."""
    clusters: dict[str, tuple[int, int]] = {}
    for one, count in _judged(opinions).items():
        hits, trials = clusters.get(one.trajectory, (0, 0))
        clusters[one.trajectory] = hits + count * (one.written == one.by_reward), trials + count
    return share(list(clusters.values())).times(100) if clusters else None


def by_chance(opinions: Mapping[Opinion, int]) -> float | None:
    """The agreement, in per cent, if the same verdicts were given to these candidates at random."""
    judged = _judged(opinions)
    total = sum(judged.values())
    written, by_reward = (_totals(judged, field) for field in ("written", "by_reward"))
    return 100 * sum(count * by_reward[name] for name, count in written.items()) / total**2 if total else None


def advanced_or_not(opinions: Mapping[Opinion, int]) -> Counter[Opinion]:
    """The same opinions without telling apart the two verdicts on actions that did not advance the task."""
    merged: Counter[Opinion] = Counter()
    for one, count in opinions.items():
        written = "did not affect" if one.written == "hindered" else one.written
        by_reward: Verdict = "did not affect" if one.by_reward == "hindered" else one.by_reward
        merged[one._replace(written=written, by_reward=by_reward)] += count
    return merged


def _totals(opinions: Mapping[Opinion, int], field: str) -> Counter[str]:
    totals: Counter[str] = Counter()
    for one, count in opinions.items():
        totals[getattr(one, field)] += count
    return totals


def _judged(opinions: Mapping[Opinion, int]) -> dict[Opinion, int]:
    """Those on candidates other than the expert's that give a verdict."""
    return {one: count for one, count in opinions.items() if one.written and one.compared != "expert's"}


def _notes(run: str, critics: Critics) -> Iterator[str]:
    if critics.given:
        yield f'{run}: the rewards gave the verdicts (critique.verdict = "reward"), so they always agree.'
    else:
        yield from _against_chance(run, "", critics.opinions)
        yield from _against_chance(run, " on whether the action advanced the task", advanced_or_not(critics.opinions))
    if critics.outdated:
        yield f"{run}: {critics.outdated:,} critiques of other rollouts are left out."


def _against_chance(run: str, subject: str, opinions: Mapping[Opinion, int]) -> Iterator[str]:
    found, chance = agreement(opinions), by_chance(opinions)
    if found and chance is not None:
        yield f"{run}: agreement{subject} {found.mean:.1f} %; the same verdicts in random order {chance:.1f} %."
