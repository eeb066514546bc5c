"""The benchmark's own EPLB gives the recorded figures, and no plan is above it."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.experts.cases import Case, cases, recorded
from benchmarks.experts.eplb import eplb, pack_batched, pack_by_layer

from shardwright.experts import Effort, even_loads, plan_experts

SMALL = [c for c in cases() if c.load.shape[0] <= 3]


def test_there_are_67_cases() -> None:
    assert len(cases()) == 67


@pytest.mark.parametrize("case", SMALL, ids=lambda c: c.name)
def test_eplb_equals_the_recorded_figures(case: Case) -> None:
    figures = recorded("deepseek_eplb")[case.name]
    for pack in (pack_batched, pack_by_layer):
        top = even_loads(case.load, eplb(case, pack), case.gpus).max(axis=1)
        assert top.mean() == pytest.approx(figures.max_load_mean, abs=0.006)
        assert top.max() == pytest.approx(figures.max_load_worst, abs=0.006)


@pytest.mark.parametrize("case", SMALL, ids=lambda c: c.name)
def test_no_layer_is_above_eplb(case: Case) -> None:
    top = even_loads(case.load, eplb(case), case.gpus).max(axis=1)
    plan = plan_experts(
        case.load,
        **case.shape(),
        allow_copies_on_one_gpu=True,
        effort=Effort(restarts=1),
    )
    assert (np.array(plan.max_load) <= top * (1 + 1e-9)).all()
