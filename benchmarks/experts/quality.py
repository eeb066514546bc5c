"""All cases: never above EPLB, gap to the bound, price of one copy per GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from shardwright.experts import Effort, ExpertPlan, even_loads, plan_experts

from .cases import Case, cases, recorded
from .eplb import eplb
from .report import Bar, Table

_SAME = 2e-5


@dataclass(frozen=True)
class Outcome:
    """A case solved with and without copies of an expert on one GPU, and EPLB's."""

    case: Case
    eplb: np.ndarray
    free: ExpertPlan
    plan: ExpertPlan
    seconds: float

    @property
    def above(self) -> int:
        """Layers whose plan (copies allowed) is heavier than EPLB's."""
        return int((np.array(self.free.max_load) > self.eplb * (1 + 1e-9)).sum())

    @property
    def price(self) -> float:
        """Relative mean max load that one copy per GPU costs."""
        return float(np.mean(self.plan.max_load) / np.mean(self.free.max_load) - 1)


def solve(case: Case, clock: Callable[[], float] = time.perf_counter) -> Outcome:
    """Both plans of a case; proofs at two slots per GPU have a table of their own."""
    effort = Effort(proof_s=0.0)
    loads = even_loads(case.load, eplb(case), case.gpus).max(axis=1)
    shape = case.shape()
    free = plan_experts(case.load, **shape, allow_copies_on_one_gpu=True, effort=effort)
    start = clock()
    plan = plan_experts(case.load, **shape, effort=effort)
    return Outcome(case, loads, free, plan, clock() - start)


def quality(quick: bool) -> Table:
    """One row per case, sizes of percent; `quick` takes the real tables only."""
    chosen = [c for c in cases() if not quick or c.table.startswith("real")]
    done = [solve(case) for case in chosen]
    rows: list[list[Any]] = [
        [
            o.case.name,
            o.case.per_gpu,
            float((o.eplb / np.array(o.free.bound)).mean() - 1) * 100,
            o.free.gap * 100,
            o.plan.gap * 100,
            o.price * 100,
            o.above,
            sum(s == "OPTIMAL" for s in o.plan.status),
            len(o.plan.status),
            o.seconds,
        ]
        for o in done
    ]
    headers = (
        "case",
        "slots/GPU",
        "EPLB gap %",
        "copies allowed gap %",
        "default gap %",
        "price %",
        "layers above EPLB",
        "optimal",
        "layers",
        "s",
    )
    return Table("All cases, even split", headers, rows, _bars(done))


def _bars(done: list[Outcome]) -> list[Bar]:
    known = recorded("deepseek_eplb")
    off = max(abs(o.eplb.mean() / known[o.case.name].max_load_mean - 1) for o in done)
    worse = [
        o.case.name
        for o in done
        if np.mean(o.free.max_load)
        > min(o.eplb.mean(), known[o.case.name].max_load_mean) * (1 + 1e-6)
    ]
    above = sum(o.above for o in done)
    wide = [o.plan.gap * 100 for o in done if o.case.per_gpu >= 5]
    price = float(np.mean([o.price for o in done])) * 100
    return [
        Bar(
            "own EPLB equals the recorded one", f"off by at most {off:.1e}", off < _SAME
        ),
        Bar(
            "mean max load never above EPLB's",
            f"{len(done) - len(worse)} of {len(done)} cases",
            not worse,
        ),
        Bar("no layer above EPLB's", f"{above} layers above", above == 0),
        Bar(
            "5 slots or more: mean gap <= 0.1%",
            f"{np.mean(wide):.4f}% over {len(wide)} cases",
            float(np.mean(wide)) <= 0.1,
        ),
        Bar("worst case <= 0.25%", f"{max(wide):.4f}%", max(wide) <= 0.25),
        Bar("one copy per GPU costs <= 0.2% mean", f"{price:.4f}%", price <= 0.2),
    ]
