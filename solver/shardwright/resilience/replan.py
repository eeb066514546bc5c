"""The best plan on what a failure leaves, and the one that moves the least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shardwright.check import check
from shardwright.cost.lengths import RequestMix
from shardwright.ingest import instance_sha256
from shardwright.plan.view import PlanView
from shardwright.problem import Compiler
from shardwright.resilience.movement import Weights, moved_bytes, relabelled
from shardwright.resilience.survivors import GpuName, without_gpus
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan, Pool, Replica
from shardwright.schema.result import Status
from shardwright.solve import Solution, solve

REQUEST_RATE = "request_rate"
SLO = "slo"


@dataclass(frozen=True, eq=False)
class NewPlan:
    """A plan on the survivors.

    ``given_up`` names what could not be held (request_rate, then slo);
    ``bytes_to_load`` are weights that GPUs do not hold yet; ``proven`` says that no
    plan of the survivors is better (for the kept one: none that leaves the other
    replicas alone).
    """

    view: PlanView
    given_up: tuple[str, ...]
    bytes_to_load: int
    replicas_kept: int
    proven: bool

    @property
    def requests_per_s(self) -> float:
        """Requests/s that it sustains."""
        return float(self.view.metrics["total"]["requests_per_s"])


@dataclass(frozen=True)
class Replanner:
    """Plans anew on the survivors of a plan."""

    instance: Instance
    plan: Plan
    time_limit_s: float = 10.0
    workers: int = 2
    stop: Callable[[], bool] | None = None

    def best(self, lost: Sequence[GpuName]) -> NewPlan | None:
        """The best plan of the survivors, whatever has to move; None when none fits."""
        left = without_gpus(self.instance, lost)
        found = self._solved(left)
        if found is None:
            return None
        solution, given_up, asked = found
        assert solution.plan is not None
        old = self._old
        plan = relabelled(old, solution.plan.document, _islands(left))
        view = PlanView(asked, plan, solution.result, solution.report)
        kept = sum(_same(r, plan.replicas()) for r in self.plan.replicas())
        proven = solution.status is Status.OPTIMAL
        return NewPlan(view, given_up, moved_bytes(old, plan), kept, proven)

    def keeping(self, lost: Sequence[GpuName]) -> NewPlan | None:
        """Replicas that are not hit stay as they are; the others' GPUs are used anew.

        None when all are hit, and for pools of prefill and decode replicas.
        """
        dead = {*lost}
        kept = [r for r in self.plan.replicas() if not dead & _gpus(r)]
        if not kept or any(pool.role != "mixed" for pool in self.plan.pools):
            return None
        left = without_gpus(self.instance, lost)
        used = {gpu for replica in kept for gpu in _gpus(replica)}
        rest = without_gpus(left, used, "reserved")
        added, proven = self._added(rest, kept)
        merged = self._merged(left, (*kept, *added))
        if merged is None:
            return None
        view, given_up = merged
        moved = moved_bytes(self._old, view.document)
        return NewPlan(view, given_up, moved, len(kept), proven)

    @property
    def _old(self) -> Weights:
        return Weights(self.instance, self.plan)

    def _solved(
        self, left: Instance
    ) -> tuple[Solution, tuple[str, ...], Instance] | None:
        """Give up the request rate, then the SLOs, until a plan exists."""
        given_up: tuple[str, ...] = ()
        for name in (None, REQUEST_RATE, SLO):
            if name is not None:
                relaxed = _without(left, name)
                if relaxed == left:
                    continue
                left, given_up = relaxed, (*given_up, name)
            if not Compiler(left).islands:
                return None
            solution = self._solve(left)
            if solution.plan is not None:
                return solution, given_up, left
        return None

    def _solve(self, instance: Instance) -> Solution:
        return solve(
            instance,
            time_limit_s=self.time_limit_s,
            workers=self.workers,
            stop=self.stop,
            explain=False,
        )

    def _added(
        self, rest: Instance, kept: Sequence[Replica]
    ) -> tuple[tuple[Replica, ...], bool]:
        """Replicas on the GPUs that are free, and whether they are the best there."""
        asked = rest.workload.request_rate_per_s
        limits = rest.limits.model_copy(update={"survive": ()})
        rest = rest.model_copy(update={"limits": limits})
        if asked is not None:
            still = asked - self._requests_per_s(kept)
            if still <= 0:
                return (), True
            rest = _asking(rest, still)
        if not Compiler(rest).islands:
            return (), True
        for instance in (rest, _without(rest, REQUEST_RATE)):
            solution = self._solve(instance)
            if solution.plan is not None:
                plan = relabelled(self._old, solution.plan.document, _islands(rest))
                return plan.replicas(), solution.status is Status.OPTIMAL
            if solution.status is not Status.INFEASIBLE:
                return (), False
        return (), True

    def _merged(
        self, left: Instance, replicas: Sequence[Replica]
    ) -> tuple[PlanView, tuple[str, ...]] | None:
        """One checked plan of kept and added replicas."""
        for given_up in ((), (REQUEST_RATE,), (REQUEST_RATE, SLO)):
            asked = left
            for name in given_up:
                asked = _without(asked, name)
            plan = self.plan.model_copy(
                update={
                    "instance_sha256": instance_sha256(asked),
                    "pools": (Pool(role="mixed", replicas=tuple(replicas)),),
                }
            )
            report = check(asked, plan)
            if report.ok:
                return PlanView(asked, plan, report=report), given_up
        return None

    def _requests_per_s(self, replicas: Sequence[Replica]) -> float:
        mix = RequestMix.of(self.instance.workload)
        mtok = sum(r.latency.rate_mtok_per_s for r in replicas)
        return float(mtok / 1000 / mix.output_mean)


def _gpus(replica: Replica) -> set[GpuName]:
    return {(gpu.node, gpu.gpu) for stage in replica.stages for gpu in stage.gpus}


def _same(replica: Replica, others: Sequence[Replica]) -> bool:
    """Whether another plan has the replica on the same GPUs with the same stages."""
    mine = [
        (s.layers, s.shape, {(g.node, g.gpu) for g in s.gpus}) for s in replica.stages
    ]
    return any(
        mine
        == [
            (s.layers, s.shape, {(g.node, g.gpu) for g in s.gpus}) for s in other.stages
        ]
        for other in others
    )


def _islands(instance: Instance) -> list[list[GpuName]]:
    found = []
    for group in instance.cluster.nodes:
        dead = {*group.failed, *group.reserved}
        for node in group.node_names():
            for island in instance.cluster.islands(group):
                found.append([(node, g) for g in island if g not in dead])
    return found


def _without(instance: Instance, name: str) -> Instance:
    if name == SLO:
        return instance.model_copy(update={"slo": ()})
    limits = instance.limits.model_copy(update={"survive": ()})
    relaxed = _asking(instance, None)
    return relaxed.model_copy(update={"limits": limits})


def _asking(instance: Instance, rate_per_s: float | None) -> Instance:
    workload = instance.workload.model_copy(update={"request_rate_per_s": rate_per_s})
    goals = instance.objective
    if rate_per_s is None and goals is not None:
        # without a rate to serve, fewest GPUs would be the smallest replica
        goals = (
            "throughput",
            *(g for g in goals if g not in ("throughput", "gpus", "cost")),
        )
    return instance.model_copy(update={"workload": workload, "objective": goals})
