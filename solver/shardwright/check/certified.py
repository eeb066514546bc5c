"""A plan beside what a certificate proves, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from textwrap import fill
from typing import Any

from shardwright.check.certificate import ClaimProof, Points, verify
from shardwright.check.certificate_tables import NotCovered, left_out
from shardwright.check.exact import exact
from shardwright.check.figures import Figures
from shardwright.check.lengths import mix_of
from shardwright.check.report import Report
from shardwright.schema.certificate import Certificate
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.instance import Instance
from shardwright.schema.result import ObjectiveValue

SCALES = {"gpus": 1, "cost": 10**6, "throughput": 10**3, "tpot": 10**6, "ttft": 10**6}
"""Integers of a goal in its own unit."""
_MOST = "throughput"
_SHOWN = 5


def whole(goal: str, value: float) -> int:
    """A value of a goal as its integer."""
    return round(value * SCALES[goal])


@dataclass(frozen=True)
class GoalProof:
    """One goal: the plan's value, the bound that its result claims, and what is proven.

    claimed None: the result claims no bound. proof None: the certificate has none.
    """

    goal: str
    value: int
    claimed: int | None
    proof: ClaimProof | None

    @property
    def bound(self) -> int | None:
        """The bound that was re-checked."""
        return None if self.proof is None else self.proof.bound

    @property
    def refuted(self) -> bool:
        """Whether the plan is better than the bound: one of the two is wrong."""
        return self.bound is not None and self._better(self.value, self.bound)

    @property
    def proven(self) -> bool:
        """Whether what the result claims of the goal was re-checked."""
        if self.claimed is None:
            return True
        if self.bound is None or self.refuted:
            return False
        return not self._better(self.bound, self.claimed)

    @property
    def optimal(self) -> bool:
        """Whether the bound, re-checked, equals the plan's value."""
        return self.bound == self.value

    def _better(self, one: int, other: int) -> bool:
        return one > other if self.goal == _MOST else one < other

    def text(self, left_out: Sequence[str]) -> str:
        """One sentence or two."""
        show = _SHOW[self.goal]
        if self.claimed is None:
            return f"{self.goal}: the result claims no bound"
        if self.proof is None:
            rest = f"the claimed {show(self.claimed)} rests on the solver"
            return f"{self.goal}: no claim in the certificate; {rest}"
        if self.bound is None:
            where = _points(self.proof.missing)
            return f"{self.goal}: rests on the solver, nothing is proven at {where}"
        words = "no plan exceeds" if self.goal == _MOST else "no plan is below"
        found = f"{self.goal}: {words} {show(self.bound)}, this one has "
        found += f"{show(self.value)}: "
        if self.refuted:
            return f"{found}the certificate is not of this plan and instance"
        gap = abs(self.bound - self.value) / max(1, self.value)
        found += "optimal" if self.optimal else f"within {gap:.4%} of the optimum"
        if self.proven:
            return found
        rest = f"that it is {show(self.claimed)} rests on the solver"
        why = [f"at {_points(self.proof.open)}"] if self.proof.open else []
        why += ["in how replicas make up fleets"] if self.proof.fleets else []
        why += [f"with {', '.join(left_out)}"] if left_out else []
        return f"{found}; {rest}{', ' if why else ''}{', '.join(why)}"


@dataclass(frozen=True)
class Certified:
    """All goals of a plan beside a certificate.

    ``grid``: whether the operating points to be covered were given.
    """

    goals: tuple[GoalProof, ...]
    grid: bool
    left_out: tuple[str, ...]

    @property
    def refuted(self) -> bool:
        """Whether the plan is better than a bound."""
        return any(goal.refuted for goal in self.goals)

    @property
    def complete(self) -> bool:
        """Whether no part of what is claimed rests on a solver."""
        return self.grid and all(goal.proven for goal in self.goals)

    def text(self) -> str:
        """The answer first, then a line for each goal."""
        if self.refuted:
            head = "certificate: refuted"
        elif self.complete:
            head = "certificate: complete, re-checked in integers without a solver"
        else:
            head = "certificate: part of the claim rests on the solver"
        lines = [head, *(_wrapped(goal.text(self.left_out)) for goal in self.goals)]
        if not self.grid:
            lines.append(_wrapped(_NO_GRID))
        proofs = [goal.proof for goal in self.goals if goal.proof is not None]
        return "\n".join([*lines, _size(proofs)])

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON; the bounds in the goals' integers."""
        goals = [
            {
                "goal": goal.goal,
                "value": goal.value,
                "claimed": goal.claimed,
                "bound": goal.bound,
                "proven": goal.proven,
                "optimal": goal.optimal,
                "refuted": goal.refuted,
                "proof": None if goal.proof is None else asdict(goal.proof),
            }
            for goal in self.goals
        ]
        return {
            "complete": self.complete,
            "refuted": self.refuted,
            "grid": self.grid,
            "left_out": list(self.left_out),
            "goals": goals,
        }


@dataclass(frozen=True)
class NoPlan:
    """That no plan exists: no fleet earns what is asked for, in mtok/s."""

    asked: int
    proof: ClaimProof
    grid: bool
    left_out: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether no part of it rests on a solver."""
        return self.grid and self.proof.bound is not None and self._short

    @property
    def _short(self) -> bool:
        return self.proof.bound is not None and self.proof.bound < self.asked

    def text(self) -> str:
        """The answer first."""
        show, bound = _SHOW[_MOST], self.proof.bound
        head = "certificate: that no plan exists rests on the solver"
        if self.complete:
            head = "certificate: no plan exists, re-checked without a solver"
        found = f"no fleet is proven to fall short of {show(self.asked)}"
        if bound is not None:
            found = f"no fleet exceeds {show(bound)}, {show(self.asked)} are needed"
        lines = [head, _wrapped(found)]
        if not self._short and self.left_out:
            lines.append(_wrapped(f"left out: {', '.join(self.left_out)}"))
        if not self.grid:
            lines.append(_wrapped(_NO_GRID))
        return "\n".join([*lines, _size([self.proof])])

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "complete": self.complete,
            "asked": self.asked,
            "grid": self.grid,
            "left_out": list(self.left_out),
            "proof": asdict(self.proof),
        }


_NO_GRID = (
    "grid: that it has no other operating points than the certificate rests on the "
    "solver; a result lists them"
)


def _wrapped(text: str) -> str:
    return fill(text, 100, initial_indent="  ", subsequent_indent="    ")


def _size(proofs: Sequence[ClaimProof]) -> str:
    links, points = sum(p.links for p in proofs), sum(p.labelled for p in proofs)
    columns = sum(p.columns for p in proofs)
    return (
        f"  {links:,} links of chains, {points:,} points by labels, "
        f"{columns:,} replicas near their price"
    )


def _points(points: Points) -> str:
    some = ", ".join(f"M={m} q={q}" for m, q in points[:_SHOWN])
    more = f" and {len(points) - _SHOWN:,} more" if len(points) > _SHOWN else ""
    return f"operating points {some}{more}"


_SHOW: dict[str, Callable[[int], str]] = {
    "throughput": lambda mtok: f"{mtok / 1000:,.3f} tokens/s",
    "gpus": lambda gpus: f"{gpus:,} GPUs",
    "cost": lambda cost: f"{cost / 10**6:,.6f} USD/h",
    "tpot": lambda ns: f"{ns / 10**6:,.6f} ms",
    "ttft": lambda ns: f"{ns / 10**6:,.6f} ms",
}


def plan_values(figures: Figures, goals: Sequence[str]) -> dict[str, int]:
    """The plan's values, recomputed, in the goals' integers."""
    found = {
        "throughput": figures.rate_mtok_per_s,
        "gpus": lambda: figures.gpus_used,
        "cost": lambda: figures.cost_micro_usd_per_hour,
        "tpot": figures.tpot_ns,
        "ttft": figures.ttft_ns,
    }
    return {goal: found[goal]() for goal in goals}


def certified(
    instance: Instance,
    report: Report,
    certificate: Certificate,
    grid: dict[str, Any] | None = None,
    objectives: Sequence[ObjectiveValue] = (),
) -> Certified:
    """Verify a certificate for a plan that was checked.

    ``grid`` and ``objectives`` are those that a result prints; without the latter the
    plan is claimed to be optimal. Raises InvalidInstance where a rule of the instance
    is not covered, or the certificate does not fit it.
    """
    goals = tuple(o.name for o in objectives) or instance.goals()
    values = plan_values(report.figures, goals)
    claimed: dict[str, int | None] = {
        o.name: None if o.bound is None else whole(o.name, o.bound) for o in objectives
    } or dict(values)
    proofs, known = _proofs(instance, certificate, grid, values)
    by_goal = {proof.goal: proof for proof in proofs}
    return Certified(
        tuple(GoalProof(g, values[g], claimed[g], by_goal.get(g)) for g in goals),
        known,
        left_out(instance),
    )


def certified_infeasible(
    instance: Instance, certificate: Certificate, grid: dict[str, Any] | None = None
) -> NoPlan:
    """Verify a certificate that no plan exists. Raises InvalidInstance."""
    proofs, known = _proofs(instance, certificate, grid, {_MOST: 0})
    return NoPlan(asked_mtok(instance), proofs[0], known, left_out(instance))


def asked_mtok(instance: Instance) -> int:
    """What a plan has to earn: the request rate, or anything at all."""
    rate = instance.workload.request_rate_per_s
    if rate is None:
        return 1
    return ceil(exact(rate) * mix_of(instance.workload).mean_output * 1000)


def _proofs(
    instance: Instance,
    certificate: Certificate,
    grid: dict[str, Any] | None,
    values: dict[str, int],
) -> tuple[tuple[ClaimProof, ...], bool]:
    """The claims' proofs, and whether the grid says what they have to cover."""
    try:
        asked, chunks = _scope(grid)
        proofs = verify(instance, certificate, values, asked, chunks)
    except NotCovered as error:
        allowed = "a rule that certificates know"
        raise _refused(f"an instance with {error}", allowed) from error
    except ValueError as error:
        raise _refused(str(error), "a certificate of this plan and instance") from error
    return proofs, bool(asked and chunks)


def _scope(
    grid: dict[str, Any] | None,
) -> tuple[dict[int, tuple[int, ...]], tuple[int, ...]]:
    """Batches by micro-batches, and chunks, of a printed grid. Raises ValueError."""
    try:
        batches = (grid or {}).get("sequences", {})
        asked = {int(q): tuple(int(m) for m in some) for q, some in batches.items()}
        chunks = (grid or {}).get("prefill_chunk_tokens", ())
        return asked, tuple(int(chunk) for chunk in chunks)
    except (TypeError, AttributeError) as error:
        raise ValueError("a grid that lists no batches") from error


def _refused(found: str, allowed: str) -> InvalidInstance:
    return InvalidInstance("certificate", [FieldError("certificate", found, allowed)])
