"""Cheapest machines for bucketed requests: counts of slices and of machines.

    min sum c_j y_j
    n_bj slices of bucket b on type j     sum_j n_bj = slices
    sum_b n_bj * load_bj <= scale * y_j   (loads in parts of one machine, rounded up)

Slices of a bucket are alike, so they are counted, not named. The program is that of
Mélange (Griggs et al., 2024), which names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardwright.formulations.cpsat.engine import EngineRun, Limits, run


@dataclass(frozen=True)
class MixType:
    """A type: price, load of one slice of every bucket (None: it cannot), most of it.

    ``scale`` is how many parts of load one machine holds; ``pool`` and ``gpus`` are
    what machines take of a shared supply.
    """

    price: int
    loads: tuple[int | None, ...]
    scale: int
    most: int | None
    pool: str | None
    gpus: int


@dataclass(frozen=True)
class Mix:
    """The engine's run, machines by type and slices by type and bucket."""

    run: EngineRun
    machines: tuple[int, ...]
    slices: tuple[tuple[int, ...], ...]


def cheapest(
    types: Sequence[MixType], buckets: int, slices: int, supply: dict[str, int],
    limits: Limits,
) -> Mix:  # fmt: skip
    """The cheapest machines that serve every slice."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    placed, counts = [], []
    for j, kind in enumerate(types):
        row = [
            model.new_int_var(0, 0 if load is None else slices, f"n{b},{j}")
            for b, load in enumerate(kind.loads)
        ]
        whole = sum((load or 0) * slices for load in kind.loads)
        need = -(-whole // kind.scale)
        most = need if kind.most is None else min(need, kind.most)
        count = model.new_int_var(0, most, f"y{j}")
        terms = (n * load for n, load in zip(row, kind.loads, strict=True) if load)
        model.add(sum(terms) <= count * kind.scale)
        placed.append(row)
        counts.append(count)
    for b in range(buckets):
        model.add(sum(row[b] for row in placed) == slices)
    for pool, gpus in supply.items():
        pairs = zip(types, counts, strict=True)
        model.add(sum(k.gpus * y for k, y in pairs if k.pool == pool) <= gpus)
    prices = zip(types, counts, strict=True)
    model.minimize(sum(kind.price * y for kind, y in prices))
    found = run(model, limits)
    if not found.found:
        return Mix(found, (), ())
    return Mix(
        found,
        tuple(found.value(y) for y in counts),
        tuple(tuple(found.value(n) for n in row) for row in placed),
    )
