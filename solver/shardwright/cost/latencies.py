"""Where iteration times come from: the analytic cost model, or measured tables.

Everything that prices a stage asks a ``StageTimes``; the instance says which kind
(``engine.latencies``). Memory, hops and transfers are the cost model's in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from shardwright.cost import aiconfigurator
from shardwright.cost.disaggregated import DisaggregatedClock
from shardwright.cost.lengths import RequestMix
from shardwright.cost.measured import NotMeasured, OperatorTimes, Tables
from shardwright.cost.rank import RankLayer
from shardwright.cost.shape import StageShape
from shardwright.cost.silicon import SiliconClock
from shardwright.cost.times import IntArray, Load, StageClock
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.instance import Instance

_FIELD = "engine.latencies"


Ranks = tuple[RankLayer, ...]


class StageTimes(Protocol):
    """Iteration times of the stages of one GPU type in one shape.

    Both methods return int64 ns per operating point: the time, and its part in
    collectives.
    """

    def layer(self, rank: RankLayer, load: Load) -> tuple[IntArray, IntArray]:
        """One layer."""

    def stage_constant(self, role: int, load: Load) -> tuple[IntArray, IntArray]:
        """What a stage of a role does outside its layers."""


class Latencies(Protocol):
    """A source of stage times for one instance."""

    def clock(self, gpu: GpuSpec, shape: StageShape, ranks: Ranks = ()) -> StageTimes:
        """Times of a shape on a GPU type.

        ``ranks`` are all layer kinds as a GPU of the shape has them: a layer of a
        disaggregated stage takes as long as its neighbours let it.
        """

    def refusal(self, gpu: GpuSpec, shape: StageShape) -> str | None:
        """Why it has no times for a shape; None: it has."""

    def versions(self, units: Iterable[tuple[GpuSpec, StageShape]]) -> dict[str, str]:
        """What the times of some units rest on, for the record of a result."""


@dataclass(frozen=True, eq=False)
class AnalyticLatencies:
    """The cost model with the calibration of each GPU type."""

    instance: Instance
    mix: RequestMix

    def clock(self, gpu: GpuSpec, shape: StageShape, ranks: Ranks = ()) -> StageTimes:
        """Times of a shape on a GPU type."""
        asked = self.instance
        model, precision, engine = asked.model, asked.precision, asked.engine.name
        of = (model, precision, self.mix, gpu, shape)
        if shape.disaggregated:
            return DisaggregatedClock(*of, ranks, engine)
        return StageClock(*of, engine)

    def refusal(self, gpu: GpuSpec, shape: StageShape) -> str | None:
        """Every shape is priced."""
        return None

    def versions(self, units: Iterable[tuple[GpuSpec, StageShape]]) -> dict[str, str]:
        """The calibration is part of the instance."""
        return {}


Source = Callable[[str, str], OperatorTimes]
"""Measured operators of a GPU type (catalogue name) under an engine."""


@dataclass(frozen=True, eq=False)
class SiliconLatencies:
    """Measured operators; ``source`` is where they come from."""

    instance: Instance
    mix: RequestMix
    source: Source
    _clocks: dict[tuple[str, StageShape], SiliconClock] = field(default_factory=dict)

    def clock(self, gpu: GpuSpec, shape: StageShape, ranks: Ranks = ()) -> SiliconClock:
        """Times of a shape on a GPU type. InvalidInstance for a type without tables."""
        key = (gpu.name, shape)
        if key not in self._clocks:
            tables = self._tables(gpu)
            model, precision = self.instance.model, self.instance.precision
            self._clocks[key] = SiliconClock(model, precision, self.mix, shape, tables)
        return self._clocks[key]

    def refusal(self, gpu: GpuSpec, shape: StageShape) -> str | None:
        """Why the tables have nothing for a shape."""
        return self.clock(gpu, shape).refusal()

    def versions(self, units: Iterable[tuple[GpuSpec, StageShape]]) -> dict[str, str]:
        """Package, tables of each GPU type, and the digest of every figure used."""
        found = {"latencies": "silicon"}
        by_type: dict[str, list[SiliconClock]] = {}
        for gpu, shape in units:
            by_type.setdefault(gpu.name, []).append(self.clock(gpu, shape))
        for name, clocks in by_type.items():
            tables = clocks[0].tables
            operators = (op for clock in clocks for op in clock.operators())
            known = tables.source.identity
            found |= {f"latencies {name} {key}": known[key] for key in sorted(known)}
            found[f"latencies {name} sha256"] = tables.sha256(operators)
        return found

    def _tables(self, gpu: GpuSpec) -> Tables:
        try:
            return _tables(self.source, gpu.name, _engine(self.instance))
        except NotMeasured as error:
            raise _refused(str(error)) from error


@lru_cache(maxsize=16)
def _tables(source: Source, gpu: str, engine: str) -> Tables:
    """One set of tables per process: plans are priced again when they are shown."""
    return Tables(source(gpu, engine))


def _engine(instance: Instance) -> str:
    name = instance.engine.name
    return "vllm" if name == "generic" else name


def latencies_of(
    instance: Instance, mix: RequestMix, source: Source | None = None
) -> Latencies:
    """What ``engine.latencies`` asks for; ``source`` replaces the measured operators.

    InvalidInstance where measured ones are asked for and cannot be had.
    """
    if instance.engine.latencies == "analytic":
        return AnalyticLatencies(instance, mix)
    if instance.workload.expert_loads is not None:
        raise _refused("analytic, with workload.expert_loads: the skew is measured")
    if instance.limits.communication_share is not None:
        raise _refused("analytic, with limits.communication_share")
    if source is None:
        if not aiconfigurator.installed():
            raise _refused(
                "analytic, or the extra installed: pip install 'shardwright[silicon]' "
                f"({aiconfigurator.PACKAGE} {aiconfigurator.RELEASE}, Linux x86-64)"
            )
        source = aiconfigurator.measured_system
    return SiliconLatencies(instance, mix, source)


def refused_shapes(reasons: Sequence[str]) -> InvalidInstance:
    """No shape of the instance has measured times."""
    first, *others = dict.fromkeys(reasons)
    more = f" (and {len(others)} reasons like it)" if others else ""
    return _refused(f"analytic, as no shape has measured times: {first}{more}")


def _refused(allowed: str) -> InvalidInstance:
    return InvalidInstance("instance", [FieldError(_FIELD, "silicon", allowed)])
