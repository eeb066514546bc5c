"""One plan in both laws: ours by the solver, the peer's by its own estimator."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from time import monotonic

from benchmarks.peer.cases import Answer, Case, Worker
from benchmarks.peer.law import PeerLaw
from shardwright.check import Report
from shardwright.plan.view import PlanView
from shardwright.schema.plan import Plan, Replica
from shardwright.solve import Solution, solve


@dataclass(frozen=True)
class Priced:
    """A plan and what both laws say; None where a law cannot say it."""

    plan: str
    ours: Answer | None
    ours_keeps: bool
    peers: Answer | None
    peers_keeps: bool


@dataclass(frozen=True)
class Comparison:
    """One case: the plans, the status of ours, and what it took."""

    case: Case
    rows: tuple[Priced, ...]
    status: str
    versions: dict[str, str]
    tried: int
    solve_wall_s: float
    solve_cpu_s: float

    def row(self, plan: str) -> Priced:
        """The row of a plan."""
        return next(row for row in self.rows if row.plan.startswith(plan))


PEERS = "peer's answer"
EVERY = "peer's law, every batch"
SAME = "peer's degrees, our batch"
OURS = "ours"


def compare(case: Case) -> Comparison:
    """All rows of a case."""
    law = PeerLaw(case.instance(), case.formats)
    before, started = _cpu_s(), monotonic()
    best = solve(case.instance(), time_limit_s=120)
    wall, cpu = monotonic() - started, _cpu_s() - before
    worker, answer, tried = law.best(case.gpus)
    rows = (
        _theirs(case, law, PEERS, case.worker, case.fix),
        _theirs(case, law, EVERY, worker, _fix_of(worker, case.gpus)),
        _ours(case, law, SAME, solve(case.instance(_degrees(case.fix)))),
        _ours(case, law, OURS, best),
    )
    assert answer is not None
    status, versions = best.status.value, best.result.versions
    return Comparison(case, rows, status, versions, tried, wall, cpu)


def _theirs(case: Case, law: PeerLaw, name: str, worker: Worker, fix: str) -> Priced:
    solution = solve(case.instance(fix))
    view, report = _shown(solution)
    answer = law.answer(worker)
    used = case.gpus // worker.gpus * worker.gpus / case.gpus
    scaled = answer and Answer(
        answer.tokens_per_s_per_gpu * used, answer.ttft_ms, answer.tpot_ms
    )
    keeps = answer is not None and law.keeps(answer)
    ours = _answer(case, view.document) if view else None
    broken = sorted({v.rule for v in report.violations}) if report else []
    name = f"{name}: {case.gpus // worker.gpus}x {worker.words()}"
    return Priced(name, ours, bool(view) and not broken, scaled, keeps)


def _ours(case: Case, law: PeerLaw, name: str, solution: Solution) -> Priced:
    view, _ = _shown(solution)
    assert view is not None
    found = [r for pool in view.document.pools for r in pool.replicas]
    workers = [_worker(replica, case.routed) for replica in found]
    answers = [law.answer(w) if w is not None else None for w in workers]
    ours = _answer(case, view.document)
    words = f"{name}: {len(found)}x {_words(found[0])}"
    if any(a is None for a in answers):
        return Priced(words, ours, solution.plan is not None, None, False)
    known = [(w, a) for w, a in zip(workers, answers, strict=True) if w and a]
    peers = Answer(
        sum(a.tokens_per_s_per_gpu * w.gpus for w, a in known) / case.gpus,
        max(a.ttft_ms for _, a in known),
        max(a.tpot_ms for _, a in known),
    )
    return Priced(words, ours, solution.plan is not None, peers, law.keeps(peers))


def _shown(solution: Solution) -> tuple[PlanView | None, Report | None]:
    if solution.plan is not None:
        return solution.plan, solution.report
    return solution.fixed, solution.fixed_report


def _answer(case: Case, plan: Plan) -> Answer:
    found = [r.latency for pool in plan.pools for r in pool.replicas]
    rate = sum(latency.rate_mtok_per_s for latency in found) / 1000
    return Answer(
        rate / case.gpus,
        max(latency.ttft_ns for latency in found) / 1e6,
        max(latency.tpot_ns for latency in found) / 1e6,
    )


def _worker(replica: Replica, routed: bool) -> Worker | None:
    """A replica as the peer has it; it has no pipelines."""
    if len(replica.stages) != 1:
        return None
    shape, point = replica.stages[0].shape, replica.operating_point
    batch = -(-point.sequences // shape.attn_dp)
    context = max(2048, point.prefill_chunk_tokens // shape.attn_dp)
    experts = (shape.moe_tp, shape.ep) if routed else (1, 1)
    return Worker(shape.tp, shape.attn_dp, *experts, batch, context)


def _words(replica: Replica) -> str:
    shape, point = replica.stages[0].shape, replica.operating_point
    degrees = f"TP{shape.tp}"
    if shape.attn_dp > 1 or shape.ep > 1:
        degrees += f" DP{shape.attn_dp} (experts TP{shape.moe_tp} EP{shape.ep})"
    chunk = point.prefill_chunk_tokens
    run_at = f"{point.sequences} sequences, {chunk} prompt"
    return f"{degrees} PP{len(replica.stages)}, {run_at}"


def _degrees(fix: str) -> str:
    """The decisions of a fix that are degrees of a replica."""
    left = ("sequences=", "chunk=")
    return ",".join(part for part in fix.split(",") if not part.startswith(left))


def _fix_of(worker: Worker, gpus: int) -> str:
    shape = f"tp={worker.tp}"
    if worker.attn_dp * worker.ep * worker.moe_tp > 1:
        shape += f",attn_dp={worker.attn_dp},moe_tp={worker.moe_tp},ep={worker.ep}"
    sequences = worker.batch * worker.attn_dp
    replicas = gpus // worker.gpus
    return (
        f"{shape},pp=1,dp={replicas},sequences={sequences},"
        f"chunk={worker.context_tokens * worker.attn_dp}"
    )


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
