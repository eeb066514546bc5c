"""Operator curves of a GPU type that was not measured, from those that were."""

from __future__ import annotations

import math
from collections.abc import Iterable

from shardwright.cost.operator_forms import computes_in, tflops_16_bit
from shardwright.cost.operator_shapes import MOVING
from shardwright.schema.cluster import Confidence, GpuSpec
from shardwright.schema.operators import OperatorCurve, OperatorFile, Peaks, curve_key


def peaks_of(gpu: GpuSpec) -> Peaks:
    """The peaks of a GPU type, as its catalogue entry states them."""
    return Peaks(
        dense_tflops=gpu.dense_tflops,
        hbm_gbyte_per_s=gpu.hbm_gbyte_per_s,
        link_gbyte_per_s=gpu.link_gbyte_per_s,
        network_gbyte_per_s=gpu.network_gbyte_per_s,
    )


def balance_distance(gpu: Peaks, other: Peaks) -> float:
    """How far two GPU types are apart: log-ratio of FLOPs per byte of HBM, bf16."""
    mine = tflops_16_bit(gpu) / gpu.hbm_gbyte_per_s
    theirs = tflops_16_bit(other) / other.hbm_gbyte_per_s
    return abs(math.log(mine / theirs))


def inherited(
    gpu: GpuSpec, measured: Iterable[tuple[OperatorFile, str]]
) -> OperatorFile:
    """The curves of a GPU type that was not measured, from those that were.

    ``measured``: files with the name of their class of GPUs (``calibration`` of the
    catalogue). Donors in order: the same type; then the same class; then the nearest
    ``balance_distance``. Each curve comes from the first donor that has it. Shares of
    peaks are kept and refer to this GPU's own peaks, microseconds are kept, curves of
    formats that the GPU does not compute in are left out. Confidence: that of the
    donor for the type itself, medium within the class, low beyond it.
    """
    peaks = peaks_of(gpu)
    donors = sorted(measured, key=lambda donor: _order(gpu, peaks, *donor))
    curves: dict[tuple[str, str, str], OperatorCurve] = {}
    for file, family in donors:
        for curve in file.curves:
            if computes_in(peaks, curve.dtype) or curve.family in MOVING:
                taken = _taken(curve, file, gpu, family)
                curves.setdefault(curve_key(curve), taken)
    first, family = donors[0]
    same = first.gpu == gpu.name
    return OperatorFile(
        gpu=gpu.name,
        peaks=peaks,
        curves=tuple(curves.values()),
        source=first.source if same else f"inherited from {first.gpu}: {first.source}",
        licence=first.licence,
        confidence=_confidence(first, gpu, family),
    )


def _order(
    gpu: GpuSpec, peaks: Peaks, file: OperatorFile, family: str
) -> tuple[bool, bool, float, str]:
    far = balance_distance(peaks, file.peaks)
    return file.gpu != gpu.name, family != gpu.calibration.name, far, file.gpu


def _taken(
    curve: OperatorCurve, donor: OperatorFile, gpu: GpuSpec, family: str
) -> OperatorCurve:
    if donor.gpu == gpu.name:
        return curve
    confidence = _confidence(donor, gpu, family)
    says = {"inherited_from": donor.gpu, "confidence": confidence}
    return curve.model_copy(update=says)


def _confidence(donor: OperatorFile, gpu: GpuSpec, family: str) -> Confidence:
    if donor.gpu == gpu.name:
        return donor.confidence
    return "medium" if family == gpu.calibration.name else "low"
