"""Layer splits of a chain that no other beats under load.

Under percentile targets a split counts by its slowest stage in each part of the
iteration law, for latency goals also by its slowest balanced and prefill iteration; all
splits of a chain have the same sums. With layers of one kind only the layers of the
first stage, of the last, and of the largest one between them matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from shardwright.cost.memory import FIRST, LAST, MIDDLE
from shardwright.formulations.dp.chain import Chain, Load, most_layers
from shardwright.problem import Design, IntArray, Problem, StageChoice
from shardwright.problem.laws import FloatArray


def best_splits(problem: Problem, chain: Chain) -> list[Design]:
    """Every split that could be best under load; needs at least two like stages.

    Rules of memory, balance and TPOT are kept; the caller checks the others.
    """
    counts = _counts(problem.layers, chain.stages)
    counts = counts[_within_caps(chain, counts)]
    if not len(counts):
        return []
    laws = _slowest(problem, chain, counts)
    if not {"tpot", "ttft"} & {*problem.goals}:
        laws = laws[:, :3]
    return [_design(problem.layers, chain, *counts[i].tolist()) for i in _front(laws)]


def _counts(layers: int, stages: int) -> IntArray:
    """(n, 3): layers of the first stage, of the last, and of the largest between."""
    first, last = np.meshgrid(*[np.arange(1, layers)] * 2, indexing="ij")
    between = layers - first - last
    middle = -(-between // max(1, stages - 2))
    fits = between == 0 if stages == 2 else between >= stages - 2
    return np.stack([first[fits], last[fits], middle[fits]], axis=1)


def _within_caps(
    chain: Chain, counts: IntArray
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """memory_fits, memory_imbalance, compute_imbalance, tpot_limit, stage by stage."""
    loads: Sequence[tuple[Load, int]] = (
        *((memory, chain.memory_cap) for memory in chain.memory),
        (chain.decode, chain.stage_cap_ns),
    )
    most = [
        min(
            most_layers(cap - load.extras[stage], load.prefix[1], len(load.prefix))
            for load, cap in loads
        )
        for stage in (0, chain.stages - 1, min(1, chain.stages - 1))
    ]
    if chain.stages == 2:
        most[2] = len(chain.decode.prefix)
    return np.asarray((counts <= np.array(most)).all(axis=1))


def _slowest(problem: Problem, chain: Chain, counts: IntArray) -> FloatArray:
    """(n, 5): alpha, kappa, beta, decode and prefill time of the slowest stage."""
    assert problem.load is not None
    laws, t, o, u = problem.load.laws, problem.tables, chain.point, chain.unit
    kind, roles = problem.layer_kinds[0], [FIRST, LAST, MIDDLE]
    layer = np.array(
        [
            *laws.layer[:, o, u, kind],
            t.decode_layer[o, u, kind],
            t.prefill_layer[o, u, kind],
        ]
    )
    role = np.array(
        [
            *laws.role[:, o, u][:, roles],
            t.decode_role[o, u][roles],
            t.prefill_role[o, u][roles],
        ]
    )
    stages = counts[:, None, :] * layer[:, None] + role
    if chain.stages == 2:
        stages = stages[:, :, :2]
    found: FloatArray = stages.max(axis=2)
    return found


def _front(laws: FloatArray) -> list[int]:
    """Indices of the rows that no other row is at most in every column."""
    order = np.lexsort(laws.T[::-1])
    kept: list[int] = []
    for i in order.tolist():
        if not any((laws[k] <= laws[i]).all() for k in kept):
            kept.append(i)
    return kept


def _design(layers: int, chain: Chain, first: int, last: int, _: int) -> Design:
    between, stages = layers - first - last, chain.stages - 2
    share, more = divmod(between, stages) if stages else (0, 0)
    middle = [share + (i < more) for i in range(stages)]
    ends = list(accumulate([first, *middle, last]))
    choices = tuple(
        StageChoice(chain.unit, a, b) for a, b in zip([0, *ends], ends, strict=False)
    )
    return chain.crossed(Design(chain.point, choices, (False,) * (chain.stages - 1)))
