"""Operator curves from tables of measurements, with their errors, and their file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardwright.cost.operator_forms import EVALUATE, Machine, computes_in
from shardwright.cost.operator_shapes import (
    FAMILY_KEYS,
    MOVING,
    derive,
    is_low_latency,
)
from shardwright.cost.operators import peaks_of
from shardwright.planning.calibrate_fit import (
    Fitted,
    Values,
    family_numbers,
    fit_curve,
)
from shardwright.planning.calibrate_table import Key, Table, read_tables
from shardwright.schema.cluster import Confidence, GpuSpec
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.operators import (
    FAMILY_FORMS,
    FORMS,
    HeldOut,
    OperatorCurve,
    OperatorFile,
    OperatorForm,
    Peaks,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ROWS_PER_PARAMETER = 3
LEAST_FAMILIES = 3

_EXCHANGES: dict[str, OperatorForm] = {
    "deepep": "exchange_by_sm",
    "deepep_nodes": "exchange_by_sm_nodes",
    "deepep_ll_nodes": "exchange_low_latency_nodes",
}
_GEMMS: dict[str, OperatorForm] = {
    "fp8": "gemm_quantizing",
    "fp8_block": "gemm_eager",
}


def form_of(key: Key) -> OperatorForm:
    """The form that fits a family, implementation and number format."""
    forms = FAMILY_FORMS[key.family]
    if key.family == "gemm":
        return _GEMMS.get(key.dtype, "gemm")
    if key.family == "all_reduce" and key.variant != "nccl":
        return "one_or_two_shot"
    if "exchange" not in forms:
        return forms[0]
    if key.variant in _EXCHANGES:
        return _EXCHANGES[key.variant]
    return "exchange_low_latency" if is_low_latency(key.variant) else "exchange"


@dataclass(frozen=True)
class CurveFit:
    """A curve with the errors of every row."""

    table: Table
    curve: OperatorCurve
    fitted: Fitted


def fit_table(
    table: Table,
    peaks: Peaks,
    *,
    by: tuple[str, ...] | None = None,
    source: str = "",
) -> CurveFit:
    """The curve of a table; families (held out together) agree in the columns ``by``.

    Raises InvalidInstance where the table has too few rows or families.
    """
    key = table.key
    columns = by if by is not None else FAMILY_KEYS[key.family]
    families = family_numbers([table.columns[name] for name in columns])
    form = form_of(key)
    _enough(table, form, families, columns)
    machine = _machine(table, peaks)
    shapes = derive(key.family, key.variant, key.dtype, table.columns)
    evaluate = EVALUATE[form]

    def model(values: Values, rows: IntArray) -> FloatArray:
        some = {name: column[rows] for name, column in shapes.items()}
        return evaluate(values, some, machine)

    fitted = fit_curve(FORMS[form], model, table.measured_us, families)
    return CurveFit(table, _curve(table, form, fitted, columns, source), fitted)


def _machine(table: Table, peaks: Peaks) -> Machine:
    key = table.key
    if key.family not in MOVING and not computes_in(peaks, key.dtype):
        allowed = f"a format of this GPU: {', '.join(peaks.dense_tflops)}"
        raise _unusable(table, "dtype", key.dtype, allowed)
    return Machine.of(peaks, key.dtype)


def _enough(
    table: Table, form: OperatorForm, families: IntArray, by: tuple[str, ...]
) -> None:
    least = ROWS_PER_PARAMETER * len(FORMS[form])
    if table.measured_us.size < least:
        raise _unusable(
            table, "rows", f"{table.measured_us.size}",
            f"at least {least} rows for the {len(FORMS[form])} parameters of {form}",
        )  # fmt: skip
    distinct = int(np.unique(families).size)
    if distinct < LEAST_FAMILIES:
        raise _unusable(
            table, "+".join(by), f"{distinct} different",
            f"at least {LEAST_FAMILIES}, to hold some out of the fit",
        )  # fmt: skip


def _unusable(table: Table, field: str, found: str, allowed: str) -> InvalidInstance:
    path = f"op {table.key} (rows {table.lines[0]} to {table.lines[-1]}), {field}"
    return InvalidInstance("measurements", [FieldError(path, found, allowed)])


def _curve(
    table: Table,
    form: OperatorForm,
    fitted: Fitted,
    by: tuple[str, ...],
    source: str,
) -> OperatorCurve:
    key = table.key
    held_out = HeldOut(
        by=by,
        families=fitted.families,
        folds=fitted.folds,
        median_ape_percent=_percent(fitted.held_out_percent, 0.5),
        p90_ape_percent=_percent(fitted.held_out_percent, 0.9),
    )
    return OperatorCurve(
        family=key.family,
        variant=key.variant,
        dtype=key.dtype,
        form=form,
        parameters=fitted.parameters,
        rows=table.measured_us.size,
        fit_median_ape_percent=_percent(fitted.fit_percent, 0.5),
        held_out=held_out,
        ranges={
            name: (float(column.min()), float(column.max()))
            for name, column in table.columns.items()
            if name not in ("woken", "pairs")
        },
        source=source,
    )


def _percent(errors: FloatArray, share: float) -> float:
    return min(round(float(np.quantile(errors, share)), 2), 1000.0)


def operator_file(
    gpu: GpuSpec,
    fits: list[CurveFit],
    *,
    source: str,
    licence: str,
    confidence: Confidence = "medium",
) -> OperatorFile:
    """The document of a GPU type's curves."""
    return OperatorFile(
        gpu=gpu.name,
        peaks=peaks_of(gpu),
        curves=tuple(fit.curve for fit in fits),
        source=source,
        licence=licence,
        confidence=confidence,
    )


def calibrate_file(path: Path, gpu: GpuSpec) -> OperatorFile:
    """Curves from a user's CSV of measurements on one GPU type.

    Raises InvalidInstance naming row and field of what it cannot use.
    """
    tables = read_tables(path, gpu.name)
    peaks = peaks_of(gpu)
    fits, errors = [], []
    for table in tables:
        try:
            fits.append(fit_table(table, peaks))
        except InvalidInstance as refused:
            errors += refused.errors
    if errors:
        raise InvalidInstance(str(path), errors)
    return operator_file(
        gpu, fits, source=f"measurements in {path.name}", licence="the user's own"
    )


def file_yaml(file: OperatorFile) -> str:
    """The YAML of an operator file, small maps on one line."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    def flowed(value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            out = CommentedMap((k, flowed(v, depth + 1)) for k, v in value.items())
            if depth >= 2:
                out.fa.set_flow_style()
            return out
        if isinstance(value, list):
            seq = CommentedSeq(flowed(v, depth) for v in value)
            if not any(isinstance(v, dict) for v in value):
                seq.fa.set_flow_style()
            return seq
        return int(value) if isinstance(value, float) and value.is_integer() else value

    raw = file.model_dump(mode="json")
    for curve in raw["curves"]:
        for empty in [k for k, v in curve.items() if v in ("", None)]:
            del curve[empty]
    yaml = YAML()
    yaml.width = 88
    stream = io.StringIO()
    yaml.dump(flowed(raw, 0), stream)
    return stream.getvalue()


def summary(file: OperatorFile) -> list[dict[str, Any]]:
    """One row per curve: what it is, and its errors in percent."""
    return [
        {
            "op": curve.family,
            "variant": curve.variant,
            "dtype": curve.dtype,
            "rows": curve.rows,
            "parameters": len(curve.parameters),
            "fit_%": curve.fit_median_ape_percent,
            "held_out_%": curve.held_out.median_ape_percent,
            "held_out_p90_%": curve.held_out.p90_ape_percent,
            "held_out_by": "+".join(curve.held_out.by),
            "families": curve.held_out.families,
        }
        for curve in file.curves
    ]
