"""How evenly replicas can be spread over rooms that each must hold them whole."""

from __future__ import annotations

from collections.abc import Sequence

from shardwright.formulations.cpsat.engine import Limits, run


def least_share(
    rooms: Sequence[int], sizes: Sequence[tuple[int, int]], limits: Limits
) -> int:
    """A bound on the most replicas in one room; 0 when none is known.

    ``rooms`` are GPUs, ``sizes`` (GPUs, how many) of the replicas. Only GPUs are
    counted, so a packing may not exist at the bound.
    """
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    total = sum(count for _, count in sizes)
    most = model.new_int_var(1, max(total, 1), "")
    held: list[list[cp_model.IntVar]] = [[] for _ in sizes]
    for room in rooms:
        own = [
            model.new_int_var(0, min(count, room // size), "") for size, count in sizes
        ]
        weights = [size for size, _ in sizes]
        model.add(cp_model.LinearExpr.weighted_sum(own, weights) <= room)
        model.add(cp_model.LinearExpr.sum(own) <= most)
        for k, variable in enumerate(own):
            held[k].append(variable)
    for (_, count), variables in zip(sizes, held, strict=True):
        model.add(cp_model.LinearExpr.sum(variables) == count)
    model.minimize(most)
    return run(model, limits).bound or 0
