"""Forms that were tried, each held out like the one that is kept.

    python -m benchmarks.calibration.alternatives

Errors are medians of the absolute percentage error over rows, per GPU type; the last
column is the worst of the row. What is kept is marked ``=``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from shardwright.cost.operator_forms import EVALUATE, Form, Machine, Shapes, Values
from shardwright.cost.operator_forms import smooth_max as smooth
from shardwright.cost.operator_shapes import FAMILY_KEYS, derive
from shardwright.cost.operators import peaks_of
from shardwright.ingest.catalogue import gpu as catalogue_gpu
from shardwright.planning.calibrate import form_of
from shardwright.planning.calibrate_fit import family_numbers, fit_curve
from shardwright.planning.calibrate_table import Table
from shardwright.schema.operators import FORMS, Parameter

from .fits import DATA, GPUS, tables_of

FloatArray = NDArray[np.float64]


def _p(name: str, start: float, low: float, high: float) -> Parameter:
    return Parameter(name, low, high, start, "")


T0, MFU, HBM = (
    _p("t0", 10, 0.5, 200),
    _p("mfu", 0.5, 0.03, 0.85),
    _p("hbm", 0.7, 0.05, 0.92),
)
NORM, LINK = _p("norm", 2.5, 1, 8), _p("link", 0.6, 0.02, 1)
SERIAL, RANK = _p("serial", 0.1, 0, 100), _p("rank", 1, 0, 20)


def _matrix(p: Values, x: Shapes, machine: Machine) -> tuple[FloatArray, FloatArray]:
    moved = (x["n"] + x["m"]) * x["k"] * machine.value_bytes + 2 * x["m"] * x["n"]
    flops = 2 * x["m"] * x["n"] * x["k"]
    return (
        flops / (machine.flops_per_us * p["mfu"]),
        moved / (machine.hbm_bytes_per_us * p["hbm"]),
    )


def gemm_roofline(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor + max(compute, memory)"""
    return p["t0"] + np.maximum(*_matrix(p, x, machine))


def gemm_smooth(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor + smooth maximum"""
    return p["t0"] + smooth(*_matrix(p, x, machine), p["norm"])


def gemm_tiles(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """... + serial k, rows padded to 64"""
    compute, memory = _matrix(p, x, machine)
    padded = compute * np.ceil(x["m"] / 64) * 64 / x["m"]
    return p["t0"] + p["serial"] * x["k"] / 1000 + smooth(padded, memory, p["norm"])


def gemm_waves(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """... + serial k, whole waves of 128x128 tiles on 132 SMs"""
    compute, memory = _matrix(p, x, machine)
    waves = np.ceil(x["m"] / 128) * x["n"] / 128 / 132
    compute = compute * np.minimum(np.ceil(waves) / waves, 4) ** p["wave"]
    return p["t0"] + p["serial"] * x["k"] / 1000 + smooth(compute, memory, p["norm"])


def decode_read(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor + cache read"""
    moved = 4 * x["sequences"] * x["kv_heads"] * x["head_dim"] * x["context"]
    return p["t0"] + moved / (machine.hbm_bytes_per_us * p["hbm"])


def decode_blocks(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """... + cost per KV head"""
    blocks = x["sequences"] * x["kv_heads"]
    return decode_read(p, x, machine) + p["serial"] * blocks / 1000


def prefill_short(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor + FLOPs at an MFU that grows with the length"""
    flops = 2 * x["sequences"] * x["tokens"] ** 2 * x["heads"] * x["head_dim"]
    slow = 1 + p["half"] / x["tokens"]
    return p["t0"] + flops * slow / (machine.attention_flops_per_us * p["mfu"])


def _experts(p: Values, x: Shapes, machine: Machine) -> tuple[FloatArray, FloatArray]:
    size = x["matrices"] * x["hidden"] * x["intermediate"]
    read = size * machine.value_bytes / (machine.hbm_bytes_per_us * p["hbm"])
    return read, 2 * size * x["pairs"] / (machine.flops_per_us * p["mfu"])


def moe_all(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """every expert of the rank read"""
    read, compute = _experts(p, x, machine)
    return p["t0"] + smooth(read * x["experts"] / x["ep"], compute, p["norm"])


def moe_woken(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """woken experts read"""
    read, compute = _experts(p, x, machine)
    return p["t0"] + smooth(read * x["woken"], compute, p["norm"])


def moe_hidden(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """... + traffic of routed inputs"""
    moved = x["tokens"] * x["top_k"] * x["hidden"] * 2 * p["passes"]
    return moe_woken(p, x, machine) + moved / machine.hbm_bytes_per_us


def moe_launches(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """... + traffic of routed inputs + us per woken expert"""
    return moe_hidden(p, x, machine) + p["serial"] * x["woken"]


def ring(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """alpha + beta per rank + volume"""
    volume = x["volume_share"] * x["bytes"] / (machine.link_bytes_per_us * p["link"])
    return p["t0"] + p["rank"] * (x["ranks"] - 1) + volume


def ring_log(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """... + log of the size"""
    return ring(p, x, machine) + p["step"] * np.log2(
        1 + x["bytes"] / (1024 * p["size"])
    )


def ring_switch(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """lesser of two protocols, latency and bandwidth each"""
    volume = x["volume_share"] * x["bytes"] / machine.link_bytes_per_us
    start = p["t0"] + p["rank"] * (x["ranks"] - 1)
    return start + np.minimum(volume / p["slow"], p["late"] + volume / p["link"])


@dataclass(frozen=True)
class Trial:
    """A form, its parameters, and the tables that it is tried on."""

    data: str
    form: Form | None
    parameters: tuple[Parameter, ...]
    wanted: Callable[[Table], bool]
    operator: str


def _of_dtype(name: str) -> Callable[[Table], bool]:
    return lambda table: table.key.dtype == name


def _of_family(name: str) -> Callable[[Table], bool]:
    return lambda table: table.key.family == name


def _of_variant(name: str) -> Callable[[Table], bool]:
    return lambda table: table.key.variant == name


def _trials() -> list[Trial]:
    rows: list[Trial] = []

    def add(
        data: str, op: str, wanted: Callable[[Table], bool], *forms: tuple[Form, str]
    ) -> None:
        for form, names in forms:
            chosen = tuple(_NAMED[name] for name in names.split())
            rows.append(Trial(data, form, chosen, wanted, op))
        rows.append(Trial(data, None, (), wanted, op))

    for name in ("bf16", "fp8", "fp8_block"):
        add("gemm", f"gemm {name}", _of_dtype(name),
            (gemm_roofline, "t0 mfu hbm"), (gemm_smooth, "t0 mfu hbm norm"),
            (gemm_tiles, "t0 mfu hbm norm serial"),
            (gemm_waves, "t0 mfu hbm norm serial wave"))  # fmt: skip
    add("decode_attention", "decode attention", _of_dtype("bf16"),
        (decode_read, "t0 hbm"), (decode_blocks, "t0 hbm serial"))  # fmt: skip
    add("prefill_attention", "prefill attention", _of_dtype("bf16"),
        (prefill_short, "t0 mfu half"))  # fmt: skip
    for name in ("bf16", "fp8", "fp8_block"):
        add("moe", f"moe {name}", _of_dtype(name),
            (moe_all, "t0 mfu hbm norm"), (moe_woken, "t0 mfu hbm norm"),
            (moe_hidden, "t0 mfu hbm norm passes"),
            (moe_launches, "t0 mfu hbm norm passes serial"))  # fmt: skip
    rings = (
        (ring, "t0 rank link"),
        (ring_log, "t0 rank link step size"),
        (ring_switch, "t0 rank link slow late"),
    )
    for op in ("all_reduce", "all_gather", "all_to_all"):
        add("nccl", f"{op} nccl", _of_family(op), *rings)
    add("all_reduce_kernels", "all_reduce trtllm",
        _of_variant("trtllm"), *rings)  # fmt: skip
    return rows


_NAMED = {
    p.name: p
    for p in (T0, MFU, HBM, NORM, LINK, SERIAL, RANK, _p("wave", 0.3, 0, 1),
              _p("half", 1000, 0, 1e5), _p("passes", 3, 0, 50), _p("step", 3, 0, 30),
              _p("size", 64, 1, 1e4), _p("slow", 0.1, 0.005, 1), _p("late", 20, 0, 200))
}  # fmt: skip


def _held_out(trial: Trial, gpu: str) -> float:
    """Median held-out error of the trial's tables on a GPU type; NaN without any."""
    errors = []
    for table in tables_of(DATA / f"{trial.data}.csv.gz", gpu):
        if not trial.wanted(table):
            continue
        key = table.key
        machine = Machine.of(peaks_of(catalogue_gpu(gpu)), key.dtype)
        shapes = derive(key.family, key.variant, key.dtype, table.columns)
        kept = form_of(key)
        form = trial.form or EVALUATE[kept]
        parameters = trial.parameters or FORMS[kept]

        def model(
            values: Values,
            rows: NDArray[np.int64],
            form: Form = form,
            shapes: Shapes = shapes,
            machine: Machine = machine,
        ) -> FloatArray:
            return form(values, {n: c[rows] for n, c in shapes.items()}, machine)

        columns = [table.columns[name] for name in FAMILY_KEYS[key.family]]
        families = family_numbers(columns)
        fitted = fit_curve(parameters, model, table.measured_us, families)
        errors.append(float(np.median(fitted.held_out_percent)))
    return float(np.mean(errors)) if errors else float("nan")


def main() -> int:
    """Print the table of trials."""
    rows = []
    for trial in _trials():
        errors = [_held_out(trial, gpu) for gpu in GPUS]
        said = "= as kept" if trial.form is None else (trial.form.__doc__ or "")
        count = len(trial.parameters) or ""
        shown = ["" if np.isnan(e) else e for e in errors]
        rows.append((trial.operator, said, count, *shown, float(np.nanmax(errors))))
    head = ("operator", "form", "par", *GPUS, "worst")
    print(tabulate(rows, head, floatfmt=".1f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
