"""Rules that chains leave out, as far as labels can decide them.

Budgets of prefill latency and the balance of a replica, each relaxed where a split of
the layers would have to be known: no replica that keeps them is ever turned away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction

from shardwright.check.certificate_labels import (
    NO_SPLIT,
    Exam,
    Label,
    Laying,
    ends,
    groups,
)
from shardwright.check.certificate_tables import (
    FIRST,
    LAST,
    MIDDLE,
    ONLY,
    PointTables,
    most_layers,
)
from shardwright.check.exact import NS_PER_MS, exact, whole_ns
from shardwright.check.stage import Point, chunk_iterations
from shardwright.check.times import constant_seconds, hop_ns, layer_ns

_ROLES = (MIDDLE, FIRST, LAST)


@dataclass(frozen=True)
class ChunkRow:
    """A unit with one prefill chunk: prefill ns and bytes, per layer and by role."""

    layer_ns: int
    stage_ns: tuple[int, ...]
    layer_bytes: int
    stage_bytes: tuple[int, ...]
    cap_bytes: int


@dataclass(frozen=True)
class Budgets:
    """Limits on prefill latency, TTFT and end to end, on the mean; None: no limit."""

    prefill_ns: int | None
    ttft_ns: int | None
    e2e_ns: int | None
    after_first: Fraction

    def within(self, ttft_ns: int | None) -> Budgets:
        """With a further limit on TTFT."""
        limits = [n for n in (self.ttft_ns, ttft_ns) if n is not None]
        return replace(self, ttft_ns=min(limits, default=None))

    def prefill(self, theta: int, micro_batches: int) -> int | None:
        """The most that prefill may take beside a TPOT of ``theta`` or more."""
        wait = -(-theta // (2 * micro_batches))
        decode = math.ceil(self.after_first * theta)
        found = [
            limit - own
            for limit, own in (
                (self.prefill_ns, 0),
                (self.ttft_ns, wait),
                (self.e2e_ns, wait + decode),
            )
            if limit is not None
        ]
        return min(found, default=None)


@dataclass
class RuleBook:
    """The rules of one instance; what a chunk comes to is computed when asked for."""

    tables: PointTables
    budgets: Budgets = field(init=False)
    memory: Fraction | None = field(init=False)
    compute: Fraction | None = field(init=False)
    _rows: dict[tuple[int, ...], ChunkRow] = field(default_factory=dict)

    def __post_init__(self) -> None:
        instance = self.tables.instance
        found: dict[str, int] = {}
        for target in instance.slo:
            if target.percentile == "mean":
                limit = math.floor(exact(target.limit_ms) * NS_PER_MS)
                found[target.metric] = min(limit, found.get(target.metric, limit))
        self.budgets = Budgets(
            found.get("prefill"),
            found.get("ttft"),
            found.get("e2e"),
            self.tables.mix.mean_output - 1,
        )
        memory, compute = (
            instance.limits.memory_imbalance,
            instance.limits.compute_imbalance,
        )
        self.memory = None if memory is None else 1 + exact(memory)
        self.compute = None if compute is None else 1 + exact(compute)

    def row(self, point: Point, k: int, tp: int) -> ChunkRow:
        """A unit's prefill and memory at a point with its chunk."""
        key = point.sequences, point.micro_batches, point.chunk, k, tp
        if key not in self._rows:
            view = self.tables.view(point, k, tp, MIDDLE, 0)
            loads = chunk_iterations(view)
            middle, first, last = (
                constant_seconds(self.tables.view(point, k, tp, role, 0), loads)
                for role in _ROLES
            )
            seconds = middle, first, last, first + last - middle
            held = tuple(self.tables.stage_bytes(point, k, tp, r) for r in range(4))
            layer = self.tables.layer_bytes(point, k, tp)
            cap = self.tables.cap_bytes(k)
            each = layer_ns(view, self.tables.kind, loads)
            times = tuple(map(whole_ns, seconds))
            self._rows[key] = ChunkRow(each, times, layer, held, cap)
        return self._rows[key]


@dataclass
class Keeper:
    """Whether labels keep the rules at one point with any of its chunks."""

    book: RuleBook
    exam: Exam
    points: tuple[Point, ...]
    ttft_ns: int | None = None
    budgets: Budgets = field(init=False)

    def __post_init__(self) -> None:
        self.budgets = self.book.budgets.within(self.ttft_ns)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to keep."""
        limits = self.budgets.prefill(0, 1), self.book.memory, self.book.compute
        return all(limit is None for limit in limits)

    def keeps(self, label: Label, theta: int, laying: Laying) -> bool:
        """True unless no split within the cap keeps the rules."""
        if self.idle:
            return True
        return any(self._with(point, label, theta, laying) for point in self.points)

    def _with(self, point: Point, label: Label, theta: int, laying: Laying) -> bool:
        units = self.exam.rows.units
        rows = {
            u: self.book.row(point, units[u].kind, units[u].gpus)
            for u, _ in label.counts
        }
        if label.stages == 1:
            return self._alone(point, label, rows)
        return any(
            self._split(point, label, theta, laying, rows, pair) for pair in ends(label)
        )

    def _alone(self, point: Point, label: Label, rows: dict[int, ChunkRow]) -> bool:
        u, length = label.counts[0][0], self.exam.rows.layers
        unit, row = self.exam.rows.units[u], rows[u]
        time = unit.layer_ns * length + unit.stage_ns[ONLY]
        if row.stage_bytes[ONLY] + length * row.layer_bytes > row.cap_bytes:
            return False
        budget = self.budgets.prefill(time * point.micro_batches, point.micro_batches)
        prefill = row.stage_ns[ONLY] + length * row.layer_ns
        return budget is None or prefill * point.chunk_count <= budget

    def _split(
        self,
        point: Point,
        label: Label,
        theta: int,
        laying: Laying,
        rows: dict[int, ChunkRow],
        pair: tuple[int, int],
    ) -> bool:
        """Caps on layers by every rule, each stage for itself, then their sum."""
        exam, all_groups = self.exam, groups(label, *pair)
        hops = exam.hops(label, *pair, laying)
        if hops is None:
            return False
        caps = self._caps(label, theta, rows, all_groups)
        least = exam.least_pass(all_groups, caps, hops)
        if least > theta:
            return False
        q = point.micro_batches
        slowest = -(-(least - hops) // label.stages)
        budget = self.budgets.prefill(max(least, q * slowest), q)
        if budget is None:
            return True
        own = self._prefill_hops(point, label, pair, laying)
        work = self._prefill(all_groups, caps, rows)
        more, mean = point.chunk_count - 1, -(-work // label.stages)
        if work + own + more * mean > budget:
            return False
        if not more:
            return True
        top = (budget - work - own) // more
        kept = {
            u: tuple(
                most_layers(most, top - row.stage_ns[role], row.layer_ns)
                for most, role in zip(caps[u], _ROLES, strict=True)
            )
            for u, row in rows.items()
        }
        return exam.least_pass(all_groups, kept, hops) <= theta

    def _caps(
        self,
        label: Label,
        theta: int,
        rows: dict[int, ChunkRow],
        all_groups: tuple[tuple[int, int, int], ...],
    ) -> dict[int, tuple[int, ...]]:
        """Most layers by role: TPOT, memory, and balance where one unit makes it."""
        stage = theta // self.exam.rows.micro_batches
        room = {u: row.cap_bytes for u, row in rows.items()}
        if len(label.counts) == 1:
            u, length, n = label.counts[0][0], self.exam.rows.layers, label.stages
            unit, row = self.exam.rows.units[u], rows[u]
            if self.book.compute is not None:
                time = sum(unit.stage_ns[_ROLES[r]] * x for _, r, x in all_groups)
                mean = Fraction(time + length * unit.layer_ns, n)
                stage = min(stage, math.floor(self.book.compute * mean))
            if self.book.memory is not None:
                held = sum(row.stage_bytes[_ROLES[r]] * x for _, r, x in all_groups)
                mean = Fraction(held + length * row.layer_bytes, n)
                room[u] = min(room[u], math.floor(self.book.memory * mean))
        return {
            u: tuple(
                most_layers(most, room[u] - row.stage_bytes[role], row.layer_bytes)
                for most, role in zip(self.exam.caps(u, stage), _ROLES, strict=True)
            )
            for u, row in rows.items()
        }

    def _prefill(
        self,
        all_groups: tuple[tuple[int, int, int], ...],
        caps: dict[int, tuple[int, ...]],
        rows: dict[int, ChunkRow],
    ) -> int:
        """The least prefill work of one chunk over all splits within the caps."""
        total, left, room = 0, self.exam.rows.layers, []
        for u, role, n in all_groups:
            total += n * (rows[u].stage_ns[_ROLES[role]] + rows[u].layer_ns)
            left -= n
            room.append((rows[u].layer_ns, n * (caps[u][role] - 1)))
        for each, most in sorted(room):
            taken = min(left, most)
            total, left = total + taken * each, left - taken
        return NO_SPLIT if left > 0 else total

    def _prefill_hops(
        self, point: Point, label: Label, pair: tuple[int, int], laying: Laying
    ) -> int:
        """The least that hops of a chunk take, whatever their order."""
        types = sorted({k for k, _ in laying.segments})
        views = [self.book.tables.view(point, k, 1, MIDDLE, 0) for k in types]
        tokens = point.micro_batch_sequences + point.prefill_tokens
        inside = min(hop_ns(a, a, tokens, True) for a in views)
        across = min(hop_ns(a, b, tokens, False) for a in views for b in views)
        segments = len(laying.segments)
        return (label.stages - segments) * inside + (segments - 1) * across
