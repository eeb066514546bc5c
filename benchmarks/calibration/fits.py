"""Every curve of every measured GPU type, from the tables in ``data/``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shardwright.cost.operators import peaks_of
from shardwright.ingest.catalogue import gpu as catalogue_gpu
from shardwright.planning.calibrate import (
    LEAST_FAMILIES,
    CurveFit,
    fit_table,
    operator_file,
)
from shardwright.planning.calibrate_fit import family_numbers
from shardwright.planning.calibrate_table import Key, Table, read_tables
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.operators import OperatorFile

FloatArray = NDArray[np.float64]

DATA = Path(__file__).parent / "data"
GPUS = ("A100-80", "H100-SXM", "H200")
LICENCE = "Apache-2.0"
SOURCE = (
    "Fitted by benchmarks/calibration to operator times measured by NVIDIA: tables of "
    "aiconfigurator-core 0.12.0 (PyPI wheel, Apache-2.0), one node unless a curve says "
    "otherwise; duplicate rows reduced to the least latency."
)
SOURCES = {
    "nccl": "nccl-tests, NCCL 2.26 or 2.27",
    "vllm": "vLLM custom all-reduce, captured graph",
    "sglang": "SGLang custom all-reduce, captured graph",
    "trtllm": "TensorRT-LLM custom all-reduce",
    "deepep": "DeepEP normal kernels, SGLang 0.5.12",
    "deepep_nodes": "DeepEP normal kernels over 2, 4, 8 nodes, notification included",
    "deepep_ll": "DeepEP low-latency kernels, SGLang 0.5.12",
    "deepep_ll_nodes": "DeepEP low-latency kernels over 1, 2, 4, 8 nodes",
    "vllm_ht": "DeepEP normal kernels under vLLM",
    "vllm_ll": "DeepEP low-latency kernels under vLLM",
    "trtllm_ht": "DeepEP normal kernels under TensorRT-LLM",
    "trtllm_ll": "DeepEP low-latency kernels under TensorRT-LLM",
    "kv_bf16": "whole attention block of DeepSeek-V3, bf16 cache",
    "kv_fp8": "whole attention block of DeepSeek-V3, fp8 cache",
}
SCATTERED = ("vllm_v2_context", "vllm_v2_generation")
"""Measured, but neighbouring sizes scatter by tens of percent: not shipped."""


SHAPE_KEY = ("hidden", "top_k", "experts")


@dataclass(frozen=True)
class Fit:
    """A fit and, of expert exchanges, a second hold-out by model shape."""

    gpu: str
    fit: CurveFit
    by_shape_percent: float | None

    @property
    def allowed_percent(self) -> float:
        """Target of the median held-out error: 15% for MoE and fp8 GEMM, else 10%."""
        key = self.fit.table.key
        wide = key.family == "moe" or (key.family == "gemm" and key.dtype != "bf16")
        return 15.0 if wide else 10.0

    @property
    def shipped(self) -> bool:
        """Whether the curve goes into the catalogue."""
        return self.fit.table.key.variant not in SCATTERED

    @property
    def holds(self) -> bool:
        """Whether the held-out error is within the target."""
        error = self.fit.curve.held_out.median_ape_percent
        return error <= self.allowed_percent


def all_fits() -> list[Fit]:
    """One fit per curve, GPU by GPU."""
    return [
        _fit(gpu, table)
        for gpu in GPUS
        for path in sorted(DATA.glob("*.csv.gz"))
        for table in tables_of(path, gpu)
    ]


def tables_of(path: Path, gpu: str) -> list[Table]:
    """The tables of one GPU type in a data file; none if it was not measured there."""
    try:
        return read_tables(path, gpu)
    except InvalidInstance as error:
        if error.errors[0].path == "rows":
            return []
        raise


def _fit(gpu: str, table: Table) -> Fit:
    peaks = peaks_of(catalogue_gpu(gpu))
    source = SOURCES.get(table.key.variant, "")
    fit = fit_table(table, peaks, source=source)
    by_shape = None
    if table.key.family.startswith("expert"):
        shapes = family_numbers([table.columns[name] for name in SHAPE_KEY])
        if np.unique(shapes).size >= LEAST_FAMILIES:
            second = fit_table(table, peaks, by=SHAPE_KEY)
            by_shape = second.curve.held_out.median_ape_percent
    return Fit(gpu, fit, by_shape)


def files(fits: list[Fit]) -> dict[str, OperatorFile]:
    """The shipped file of every GPU type."""
    return {
        gpu: operator_file(
            catalogue_gpu(gpu),
            [f.fit for f in fits if f.gpu == gpu and f.shipped],
            source=SOURCE,
            licence=LICENCE,
            confidence="high",
        )
        for gpu in GPUS
    }


def scatter_percent(table: Table) -> float:
    """How far a row lies from the geometric mean of its neighbours in size, median.

    Times grow slowly where launches dominate, so a smooth curve cannot be closer to
    such rows than about this.
    """
    size = next(c for c in ("tokens", "bytes") if c in table.columns)
    others = [c for c in table.columns if c != size]
    groups: dict[tuple[float, ...], list[int]] = {}
    for row, key in enumerate(zip(*(table.columns[c] for c in others), strict=True)):
        groups.setdefault(key, []).append(row)
    apart: list[float] = []
    for rows in groups.values():
        ordered = sorted(rows, key=lambda r: float(table.columns[size][r]))
        log = np.log(table.measured_us[ordered])
        apart += np.abs(log[1:-1] - (log[:-2] + log[2:]) / 2).tolist()
    return 100 * float(np.median(apart)) if apart else 0.0


__all__ = ["DATA", "GPUS", "Fit", "Key", "all_fits", "files", "scatter_percent"]
