"""Measured operator curves of one GPU type: what a file of ``operators/`` holds.

A curve is one closed form with at most six parameters for one operator family,
implementation and number format on one GPU type. ``FORMS`` names every form's
parameters with their units and physical bounds; ``cost.operators`` evaluates them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from shardwright.schema.base import Count, Document, Name, NonNegative, Number, Positive
from shardwright.schema.cluster import Confidence

OperatorFamily = Literal[
    "gemm",
    "prefill_attention",
    "decode_attention",
    "mla_prefill",
    "mla_decode",
    "moe",
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
    "expert_dispatch",
    "expert_combine",
]
OperatorForm = Literal[
    "gemm",
    "gemm_quantizing",
    "gemm_eager",
    "prefill_attention",
    "decode_attention",
    "mla_prefill",
    "mla_decode",
    "moe",
    "pipelined",
    "one_or_two_shot",
    "exchange",
    "exchange_by_sm",
    "exchange_by_sm_nodes",
    "exchange_low_latency",
    "exchange_low_latency_nodes",
]
OperatorDtype = Literal["bf16", "fp8", "fp8_block", "fp4"]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a form: its physical bounds, unit, and where a fit starts."""

    name: str
    low: float
    high: float
    start: float
    unit: str


def _floor(start: float, name: str = "floor_us", high: float = 600) -> Parameter:
    return Parameter(name, 0.5, high, start, "us")


def _share(name: str, start: float, low: float, high: float) -> Parameter:
    return Parameter(name, low, high, start, "share of the peak")


_HBM = _share("hbm_efficiency", 0.7, 0.05, 0.92)
_MFU = _share("mfu", 0.5, 0.03, 0.85)
_LINK = _share("link_efficiency", 0.6, 0.02, 1.0)
_NETWORK = _share("network_efficiency", 0.7, 0.05, 1.0)
_NORM = Parameter("norm", 1, 8, 2.5, "exponent of the smooth maximum")
_BY_SM = Parameter("sm_gbyte_per_s", 0.5, 200, 10, "GB/s of one SM")

FORMS: dict[OperatorForm, tuple[Parameter, ...]] = {
    "gemm": (
        _floor(3, high=90),
        _MFU,
        _HBM,
        _NORM,
        Parameter("us_per_1000_k", 0, 5, 0.1, "us"),
    ),
    "gemm_quantizing": (
        _floor(3, high=90),
        _MFU,
        _HBM,
        _NORM,
        Parameter("us_per_1000_k", 0, 5, 0.1, "us"),
        _share("quantize_efficiency", 0.4, 0.05, 0.92),
    ),
    "gemm_eager": (
        _floor(60, "floor_to_16_rows_us", 150),
        _MFU,
        _HBM,
        _NORM,
        _floor(80, "floor_us", 200),
        _share("quantize_efficiency", 0.4, 0.05, 0.92),
    ),
    "prefill_attention": (
        _floor(10, high=50),
        _MFU,
        _HBM,
        _NORM,
        Parameter("us_per_1000_positions", 0, 100, 1, "us"),
    ),
    "decode_attention": (
        _floor(10, high=50),
        _HBM,
        Parameter("ns_per_kv_head", 0, 200, 30, "ns"),
        Parameter("ungrouped_us_per_1000_positions", 0, 100, 1, "us"),
        Parameter("grouped_us", 0, 30, 3, "us"),
        _NORM,
    ),
    "mla_prefill": (
        _floor(80, high=300),
        _HBM,
        _MFU,
        _share("attention_mfu", 0.6, 0.05, 0.85),
        Parameter("us_per_1000_tokens", 0, 3000, 50, "us"),
    ),
    "mla_decode": (
        _floor(80, high=300),
        _HBM,
        _MFU,
        _share("cache_efficiency", 0.5, 0.05, 0.92),
        _share("attention_mfu", 0.5, 0.05, 0.85),
        Parameter("us_per_1000_tokens", 0, 3000, 100, "us"),
    ),
    "moe": (
        _floor(30, high=200),
        _HBM,
        _MFU,
        _NORM,
        Parameter("passes", 0, 50, 3, "passes over the routed activations"),
        Parameter("narrow_columns", 0, 4000, 20, "columns lost per matrix"),
    ),
    "pipelined": (
        _floor(4, high=60),
        Parameter("per_rank_us", 0, 20, 1, "us"),
        _LINK,
        Parameter("pipeline_us", 0, 1000, 10, "us"),
        Parameter("rank_exponent", -0.6, 0.6, 0, "power of ranks/8"),
    ),
    "one_or_two_shot": (
        _floor(4, high=60),
        Parameter("per_rank_us", 0, 20, 0.2, "us"),
        _share("one_shot_efficiency", 0.5, 0.02, 1.0),
        Parameter("pipeline_us", 0, 1000, 3, "us"),
        _LINK,
        Parameter("rank_exponent", -0.6, 0.6, 0.1, "power of ranks/8"),
    ),
    "exchange": (
        _floor(50),
        _LINK,
        Parameter("launch_us", 0, 300, 20, "us"),
        _NORM,
        Parameter("us_per_1000_tokens", 0, 1000, 5, "us"),
    ),
    "exchange_by_sm": (
        _floor(25, high=200),
        _BY_SM,
        _LINK,
        _NORM,
        Parameter("pipeline_us", 0, 100, 2, "us"),
    ),
    "exchange_by_sm_nodes": (
        _floor(20, high=200),
        Parameter("per_doubling_us", 0, 100, 10, "us per doubling of nodes"),
        _BY_SM,
        _NETWORK,
        _NORM,
        Parameter("contention_exponent", -0.5, 1, 0, "power of nodes/2"),
    ),
    "exchange_low_latency": (
        _floor(10, high=200),
        _LINK,
        Parameter("us_per_local_expert", 0, 10, 0.1, "us"),
        _NORM,
    ),
    "exchange_low_latency_nodes": (
        _floor(10, high=100),
        Parameter("network_us", 0, 100, 10, "us"),
        _LINK,
        _NETWORK,
    ),
}
"""Parameters of every form, in the order in which a fit takes them."""

FAMILY_FORMS: dict[OperatorFamily, tuple[OperatorForm, ...]] = {
    "gemm": ("gemm", "gemm_quantizing", "gemm_eager"),
    "prefill_attention": ("prefill_attention",),
    "decode_attention": ("decode_attention",),
    "mla_prefill": ("mla_prefill",),
    "mla_decode": ("mla_decode",),
    "moe": ("moe",),
    "all_reduce": ("pipelined", "one_or_two_shot"),
    "all_gather": ("pipelined",),
    "reduce_scatter": ("pipelined",),
    "all_to_all": ("pipelined",),
    "expert_dispatch": (
        "exchange",
        "exchange_by_sm",
        "exchange_by_sm_nodes",
        "exchange_low_latency",
        "exchange_low_latency_nodes",
    ),
    "expert_combine": (
        "exchange",
        "exchange_by_sm",
        "exchange_by_sm_nodes",
        "exchange_low_latency",
        "exchange_low_latency_nodes",
    ),
}

Ape = Annotated[Number, Field(ge=0, le=1000)]


class HeldOut(Document):
    """Error on whole families that the fit has not seen.

    ``by`` names the columns that make a family; all families lie in ``folds`` parts,
    each predicted by a fit of the others. Errors are absolute percentage errors.
    """

    by: tuple[Name, ...]
    families: Count
    folds: Annotated[int, Field(ge=2, le=1000)]
    median_ape_percent: Ape
    p90_ape_percent: Ape


class OperatorCurve(Document):
    """One fitted curve, with its errors and the range of shapes that it has seen.

    A curve taken over from another GPU type says from which, and its own confidence.
    """

    family: OperatorFamily
    variant: str = ""
    dtype: OperatorDtype
    form: OperatorForm
    parameters: dict[str, NonNegative | Number]
    rows: Count
    fit_median_ape_percent: Ape
    held_out: HeldOut
    ranges: dict[str, tuple[Number, Number]]
    source: str = ""
    inherited_from: str = ""
    confidence: Confidence | None = None

    @model_validator(mode="after")
    def _physical(self) -> OperatorCurve:
        if self.form not in FAMILY_FORMS[self.family]:
            allowed = ", ".join(FAMILY_FORMS[self.family])
            raise ValueError(f"{self.family} has the forms {allowed}, not {self.form}")
        declared = [parameter.name for parameter in FORMS[self.form]]
        if set(self.parameters) != set(declared):
            raise ValueError(f"form {self.form} has the parameters {declared}")
        for parameter in FORMS[self.form]:
            value = self.parameters[parameter.name]
            if not parameter.low <= value <= parameter.high:
                raise ValueError(
                    f"{parameter.name} is {value:g}; physically it lies from "
                    f"{parameter.low:g} to {parameter.high:g}"
                )
        return self


class Peaks(Document):
    """What the shares of a file are shares of: figures of one GPU, per direction."""

    dense_tflops: dict[str, Positive]
    hbm_gbyte_per_s: Positive
    link_gbyte_per_s: Positive
    network_gbyte_per_s: Positive


class OperatorFile(Document):
    """All curves of one GPU type."""

    version: Literal["1.0"] = "1.0"
    gpu: Name
    peaks: Peaks
    curves: Annotated[tuple[OperatorCurve, ...], Field(min_length=1, max_length=500)]
    source: str
    licence: str
    confidence: Confidence

    @model_validator(mode="after")
    def _unique(self) -> OperatorFile:
        keys = [curve_key(curve) for curve in self.curves]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        if repeated:
            raise ValueError(f"curves occur twice: {repeated}")
        return self


def curve_key(curve: OperatorCurve) -> tuple[str, str, str]:
    """What tells the curves of a file apart: family, variant and number format."""
    return curve.family, curve.variant, curve.dtype


__all__ = [
    "FAMILY_FORMS",
    "FORMS",
    "HeldOut",
    "OperatorCurve",
    "OperatorDtype",
    "OperatorFamily",
    "OperatorFile",
    "OperatorForm",
    "Parameter",
    "Peaks",
    "curve_key",
]
