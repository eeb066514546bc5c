"""Which GPUs to rent: types with prices against buckets of requests.

The tables of what a machine serves are given (the layout of Mélange's solver), or
solved for: a replica of every size of every type, under the instance's own limits.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil, lcm
from pathlib import Path
from typing import Any

from shardwright.cost.lengths import exact
from shardwright.formulations.cpsat.fleet_mix import Mix, MixType, cheapest
from shardwright.ingest.document import parse, read_file
from shardwright.ingest.validate import validate
from shardwright.planning.sweep import OnRow, sweep
from shardwright.schema.mix import MixFile, MixGpu, MixPlanFile, MixResult
from shardwright.schema.result import Status
from shardwright.schema.sweep import Row, SweepFile
from shardwright.search.base import SearchLimits

_FINEST = 10**9
_MICRO = 10**6


def mix(
    source: str | Path | MixFile,
    *,
    time_limit_s: float = 30.0,
    workers: int = 2,
    seed: int = 0,
    stop: Callable[[], bool] | None = None,
    on_row: OnRow | None = None,
) -> MixResult:
    """The cheapest machines for a file with tables, or with GPU types and buckets.

    Raises InvalidInstance.
    """
    limits = SearchLimits(
        time_limit_s, workers=workers, seed=seed, stop=stop or (lambda: False)
    )
    if isinstance(source, MixFile):
        return _solved(source, limits)
    path = Path(source)
    raw = parse(read_file(path), str(path))
    if "gpu_info" in raw or "instance" not in raw:
        return _solved(validate(MixFile, raw, str(path)), limits)
    asked = validate(MixPlanFile, raw, str(path))
    rows = capacity(asked, path.parent, limits, on_row)
    left = max(1.0, limits.remaining_s())
    again = SearchLimits(left, workers=workers, seed=seed, stop=limits.stop)
    return _solved(tables(asked, rows), again, tuple(rows))


def capacity(
    asked: MixPlanFile, folder: Path, limits: SearchLimits, on_row: OnRow | None = None
) -> list[Row]:
    """Most requests/s of one replica, by type, size and bucket, in this order."""
    points: list[dict[str, Any]] = []
    for name, kind in asked.gpu_types.items():
        reference = kind.model_dump(
            mode="json", by_alias=True, exclude={"sizes", "max_gpus"}, exclude_none=True
        )
        for size in kind.sizes:
            node = {"name": name, "gpu": name, "gpus": size}
            cluster = {"gpu_types": {name: reference}, "nodes": [node]}
            for bucket in asked.buckets:
                given = bucket.model_dump(mode="json", exclude_none=True)
                points.append(
                    {
                        "cluster": cluster,
                        "workload.input_tokens": given["input_tokens"],
                        "workload.output_tokens": given["output_tokens"],
                    }
                )
    base: dict[str, tuple[Any, ...]] = {
        "workload.request_rate_per_s": (None,),
        "limits.survive": (None,),
        "fix.dp": (1,),
    }
    file = SweepFile.model_validate(
        {
            "instance": str((folder / asked.instance).resolve()),
            "vary": base,
            "list": tuple(points),
            "time_limit_s": limits.time_limit_s,
            "objective": ("throughput", "gpus"),
        }
    )
    return sweep(file, workers=limits.workers, stop=limits.stop, on_row=on_row)


def tables(asked: MixPlanFile, rows: list[Row]) -> MixFile:
    """Machines are replicas: one per type and size that serves anything."""
    cells = iter(rows)
    machines: dict[str, MixGpu] = {}
    supply: dict[str, int] = {}
    for name, kind in asked.gpu_types.items():
        if kind.max_gpus is not None:
            supply[name] = kind.max_gpus
        for size in kind.sizes:
            served = [next(cells, {}) for _ in asked.buckets]
            rates = tuple(float(row.get("requests_per_s") or 0.0) for row in served)
            price = _price(kind.catalogue, kind.price_usd_per_hour)
            if any(rates) and price > 0:
                machines[f"{name} x{size}"] = MixGpu(
                    cost=price * size,
                    tputs=(rates,),
                    pool=name if name in supply else None,
                    gpus=size,
                )
    total = sum(bucket.request_rate_per_s for bucket in asked.buckets)
    shares = tuple(bucket.request_rate_per_s / total for bucket in asked.buckets)
    nothing = MixGpu(cost=1.0, tputs=(tuple(0.0 for _ in shares),), max=0)
    return MixFile(
        name=asked.name,
        gpu_info=machines or {"none": nothing},
        workload_distribution=(shares,),
        total_request_rate=total,
        slice_factor=asked.slice_factor,
        supply=supply,
    )


def _price(catalogue_name: str, given: float | None) -> float:
    from shardwright.ingest import catalogue

    if given is not None:
        return given
    return catalogue.gpu(catalogue_name).price_usd_per_hour or 0.0


def _solved(
    file: MixFile, limits: SearchLimits, rows: tuple[Row, ...] = ()
) -> MixResult:
    shares = [exact(s) for row in file.workload_distribution for s in row]
    slice_rates = [
        exact(file.total_request_rate) * share / file.slice_factor for share in shares
    ]
    types = [_type(gpu, slice_rates) for gpu in file.gpu_info.values()]
    found = cheapest(types, len(shares), file.slice_factor, file.supply, limits)
    cost, bound = found.run.objective, found.run.bound
    return MixResult(
        name=file.name,
        status=found.run.status,
        cost_usd_per_hour=None if cost is None else cost / _MICRO,
        bound_usd_per_hour=None if bound is None else bound / _MICRO,
        rounding="loads up to 1e-9 of a machine where they are no whole parts of it",
        seconds=round(limits.elapsed_s(), 3),
        tables=file,
        capacity=rows,
        **_parts(file, types, found),
    )


def _type(gpu: MixGpu, slice_rates: list[Fraction]) -> MixType:
    rates = [exact(t) for row in gpu.tputs for t in row]
    loads = [
        need / rate if rate else None if need else Fraction(0)
        for need, rate in zip(slice_rates, rates, strict=True)
    ]
    whole = lcm(*(load.denominator for load in loads if load is not None))
    scale = whole if whole <= _FINEST else _FINEST
    return MixType(
        price=ceil(exact(gpu.cost) * _MICRO),
        loads=tuple(None if load is None else ceil(load * scale) for load in loads),
        scale=scale,
        most=gpu.max,
        pool=gpu.pool,
        gpus=gpu.gpus,
    )


def _parts(file: MixFile, types: list[MixType], found: Mix) -> dict[str, Any]:
    """Counts, loads and routing by type; nothing without a solution."""
    if found.run.status not in (Status.OPTIMAL, Status.FEASIBLE):
        return {"counts": {}, "load": {}, "routing": {}}
    names, widths = [*file.gpu_info], [len(row) for row in file.workload_distribution]
    counts, load, routing = {}, {}, {}
    for name, kind, count, row in zip(
        names, types, found.machines, found.slices, strict=True
    ):
        counts[name] = count
        used = sum(n * (part or 0) for n, part in zip(row, kind.loads, strict=True))
        load[name] = used / (kind.scale * count) if count else 0.0
        cells = iter(n / file.slice_factor for n in row)
        routing[name] = tuple(tuple(next(cells) for _ in range(w)) for w in widths)
    return {"counts": counts, "load": load, "routing": routing}


def mix_text(result: MixResult) -> str:
    """The answer first, then one line per type."""
    from shardwright.plan.tables.text import grid, number, percent

    if not result.counts:
        return f"{result.status.value}  no machines serve all requests of {result.name}"
    bought = ", ".join(f"{n} {name}" for name, n in result.counts.items() if n)
    cost, bound = result.cost_usd_per_hour, result.bound_usd_per_hour
    head = (
        f"{result.status.value}  {bought}: {number(cost or 0, 2)} USD/h, bound "
        f"{'-' if bound is None else number(bound, 2)}, {result.seconds:.2f} s"
    )
    shares = [s for row in result.tables.workload_distribution for s in row]
    total = sum(shares)
    rows = []
    for name, gpu in result.tables.gpu_info.items():
        parts = [p for row in result.routing[name] for p in row]
        served = sum(p * s for p, s in zip(parts, shares, strict=True)) / total
        count = result.counts[name]
        rows.append(
            [
                name,
                number(count),
                number(gpu.cost, 2),
                number(gpu.cost * count, 2),
                percent(result.load[name]) if count else "-",
                percent(served),
            ]
        )
    heads = ["machine", "count", "USD/h\neach", "USD/h", "load", "of all\nrequests"]
    refused = dict.fromkeys(
        row["reason"] for row in result.capacity if row["status"] in _FAILED
    )
    notes = [f"left out: {reason}" for reason in refused]
    return "\n\n".join([head, grid(heads, rows, "lrrrrr"), *notes])


_FAILED = ("INVALID", "ERROR")
