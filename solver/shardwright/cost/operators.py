"""Operator times from measured curves: numpy arrays of shapes in, microseconds out.

    ops = Operators(operator_file)
    ops.gemm_us(m, n, k, dtype="fp8")

Shapes broadcast against one another; every result is a float array of us. The forms
are in ``cost.operator_forms``, their parameters in the file of a GPU type; a GPU
type without measurements inherits its curves from others (``inherited``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shardwright.cost.operator_forms import (
    EVALUATE,
    MLA_LATENT,
    Machine,
    mla_parameters,
)
from shardwright.cost.operator_inheritance import (
    balance_distance,
    inherited,
    peaks_of,
)
from shardwright.cost.operator_shapes import COLUMNS, derive, uniform_woken
from shardwright.ingest.operators import measured_operators
from shardwright.schema.cluster import Confidence, GpuSpec
from shardwright.schema.operators import (
    OperatorCurve,
    OperatorFamily,
    OperatorFile,
    Peaks,
    curve_key,
)

FloatArray = NDArray[np.float64]

DTYPES = {"fp16": "bf16", "int8": "fp8", "int4": "fp4"}
"""Formats that are timed as another of the same width."""


class NoCurve(LookupError):
    """The file has no curve of this family, variant and number format."""


def evaluate(curve: OperatorCurve, peaks: Peaks, **columns: ArrayLike) -> FloatArray:
    """Times of a curve, us. ``columns`` are those of ``COLUMNS[family]``; those with a
    default may be missing; they broadcast. ``moe`` takes ``woken`` and ``pairs`` too.
    """
    raw = _broadcast(curve.family, columns)
    shapes = derive(curve.family, curve.variant, curve.dtype, raw)
    machine = Machine.of(peaks, curve.dtype)
    return EVALUATE[curve.form](curve.parameters, shapes, machine)


def _broadcast(
    family: OperatorFamily, columns: dict[str, ArrayLike]
) -> dict[str, FloatArray]:
    defaults = {c: v for c, v in COLUMNS[family].items() if v is not None}
    given: dict[str, ArrayLike] = {**defaults, **columns}
    arrays = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in given.values()))
    return dict(zip(given, arrays, strict=True))


@dataclass(frozen=True)
class Operators:
    """The curves of one GPU type, by operator."""

    file: OperatorFile

    @cached_property
    def _curves(self) -> dict[tuple[str, str, str], OperatorCurve]:
        return {curve_key(curve): curve for curve in self.file.curves}

    def has(
        self, family: OperatorFamily, dtype: str = "bf16", variant: str = ""
    ) -> bool:
        """Whether there is such a curve."""
        return (family, variant, DTYPES.get(dtype, dtype)) in self._curves

    def curve(
        self, family: OperatorFamily, dtype: str = "bf16", variant: str = ""
    ) -> OperatorCurve:
        """The curve of an operator. Raises NoCurve."""
        key = (family, variant, DTYPES.get(dtype, dtype))
        if key not in self._curves:
            raise NoCurve(f"{self.file.gpu} has no curve for {' '.join(key)}")
        return self._curves[key]

    def confidence(
        self, family: OperatorFamily, dtype: str = "bf16", variant: str = ""
    ) -> Confidence:
        """How far to trust a curve: its own mark, else that of the file."""
        return self.curve(family, dtype, variant).confidence or self.file.confidence

    def _time(
        self, family: OperatorFamily, dtype: str, variant: str, **columns: ArrayLike
    ) -> FloatArray:
        curve = self.curve(family, dtype, variant)
        return evaluate(curve, self.file.peaks, **columns)

    def gemm_us(
        self, m: ArrayLike, n: ArrayLike, k: ArrayLike, *, dtype: str = "bf16"
    ) -> FloatArray:
        """(m x k)·(k x n) on one GPU: m tokens, n output and k input features.

        fp8 includes quantising the activations. fp8_block was measured launched from
        the host and has its floor of 60 to 90 us: see ``gemm_device_us``.
        """
        return self._time("gemm", dtype, "", m=m, n=n, k=k)

    def gemm_device_us(
        self, m: ArrayLike, n: ArrayLike, k: ArrayLike, *, dtype: str = "bf16"
    ) -> FloatArray:
        """As ``gemm_us`` without any constant floor: inside a captured graph the
        launches of neighbours hide it, and the caller adds what a kernel costs there.
        """
        curve = self.curve("gemm", dtype)
        floors = {p: 0.0 for p in curve.parameters if p.startswith("floor")}
        free = curve.model_copy(update={"parameters": {**curve.parameters, **floors}})
        return evaluate(free, self.file.peaks, m=m, n=n, k=k)

    def prefill_attention_us(
        self,
        sequences: ArrayLike,
        tokens: ArrayLike,
        heads: ArrayLike,
        kv_heads: ArrayLike,
        *,
        head_dim: ArrayLike = 128,
        attended: ArrayLike | None = None,
        dtype: str = "bf16",
    ) -> FloatArray:
        """Causal attention of prompts of ``tokens`` each, one layer, heads of one GPU.

        ``attended``: mean positions that a token attends to, tokens/2 if not given; a
        prefix makes it larger (not measured: the FLOPs are then extrapolated).
        """
        columns = {
            "sequences": sequences,
            "tokens": tokens,
            "heads": heads,
            "kv_heads": kv_heads,
            "head_dim": head_dim,
        }
        if attended is not None:
            columns["attended"] = attended
        return self._time("prefill_attention", dtype, "", **columns)

    def decode_attention_us(
        self,
        sequences: ArrayLike,
        context: ArrayLike,
        heads: ArrayLike,
        kv_heads: ArrayLike,
        *,
        head_dim: ArrayLike = 128,
        cache_bytes: ArrayLike = 2,
        dtype: str = "bf16",
    ) -> FloatArray:
        """One step of ``sequences`` with ``context`` tokens cached each, one layer.

        ``cache_bytes`` of one cached value; measured with 2 only.
        """
        return self._time(
            "decode_attention",
            dtype,
            "",
            sequences=sequences,
            context=context,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            cache_bytes=cache_bytes,
        )

    def mla_prefill_us(
        self,
        sequences: ArrayLike,
        tokens: ArrayLike,
        heads: ArrayLike,
        *,
        attended: ArrayLike | None = None,
        dtype: str = "bf16",
        cache: str = "bf16",
    ) -> FloatArray:
        """A whole latent-attention block, its matrices included, on a prompt.

        Widths are DeepSeek-V3's (q_lora 1536, kv_lora 512, rope 64, nope 128, value
        128, hidden 7168); ``heads`` of one GPU; ``cache`` is the cache's format.
        """
        columns = {"sequences": sequences, "tokens": tokens, "heads": heads}
        if attended is not None:
            columns["attended"] = attended
        return self._time("mla_prefill", dtype, f"kv_{cache}", **columns)

    def mla_decode_us(
        self,
        sequences: ArrayLike,
        context: ArrayLike,
        heads: ArrayLike,
        *,
        dtype: str = "bf16",
        cache: str = "bf16",
    ) -> FloatArray:
        """As ``mla_prefill_us``, one decoding step."""
        return self._time(
            "mla_decode",
            dtype,
            f"kv_{cache}",
            sequences=sequences,
            context=context,
            heads=heads,
        )

    def moe_us(
        self,
        tokens: ArrayLike,
        hidden: ArrayLike,
        intermediate: ArrayLike,
        top_k: ArrayLike,
        *,
        woken: ArrayLike,
        pairs: ArrayLike,
        matrices: ArrayLike = 3,
        dtype: str = "bf16",
    ) -> FloatArray:
        """Routed experts of the busiest rank, one layer, without exchange.

        ``tokens`` of the whole group that shares these experts; ``intermediate`` of
        one expert on this rank (divided by moe_tp); ``woken`` experts of the rank with
        at least one token; ``pairs`` token-expert pairs of the rank (tokens·top_k/ep
        times the imbalance). ``uniform_woken`` gives ``woken`` for uniform routing.
        """
        return self._time(
            "moe",
            dtype,
            "",
            tokens=tokens,
            hidden=hidden,
            intermediate=intermediate,
            top_k=top_k,
            experts=1.0,
            matrices=matrices,
            woken=woken,
            pairs=pairs,
        )

    def collective_us(
        self,
        operation: OperatorFamily,
        message_bytes: ArrayLike,
        ranks: ArrayLike,
        *,
        variant: str = "nccl",
    ) -> FloatArray:
        """``all_reduce``, ``all_gather``, ``reduce_scatter`` or ``all_to_all`` inside
        one island; 0 for one rank.

        ``message_bytes``: the vector of one rank for all-reduce, the gathered (or
        scattered) whole for the others. ``variant``: ``nccl``; for all-reduce also the
        kernels of ``vllm``, ``sglang``, ``trtllm``. Measured on 2, 4 and 8 ranks.
        """
        several = np.maximum(np.asarray(ranks, dtype=float), 2)
        time = self._time(
            operation, "bf16", variant, bytes=message_bytes, ranks=several
        )
        result: FloatArray = np.where(np.asarray(ranks) > 1, time, 0.0)
        return result

    def exchange_us(
        self,
        operation: OperatorFamily,
        tokens: ArrayLike,
        hidden: ArrayLike,
        top_k: ArrayLike,
        experts: ArrayLike,
        *,
        variant: str,
        nodes: ArrayLike = 1,
        sms: ArrayLike = 20,
        dtype: str = "bf16",
    ) -> FloatArray:
        """``expert_dispatch`` or ``expert_combine`` over 8 GPUs per node.

        ``tokens`` of one rank. Variants: see docs/calibration.md (``deepep``,
        ``deepep_nodes``, ``deepep_ll``, ``deepep_ll_nodes``, ``vllm_ht``, ...).
        """
        return self._time(
            operation,
            dtype,
            variant,
            tokens=tokens,
            hidden=hidden,
            top_k=top_k,
            experts=experts,
            nodes=nodes,
            sms=sms,
        )


def operators_for(gpu: GpuSpec) -> Operators:
    """The curves that the catalogue gives a GPU type: its own, else inherited."""
    return Operators(inherited(gpu, measured_operators()))


__all__ = [
    "MLA_LATENT",
    "NoCurve",
    "Operators",
    "balance_distance",
    "evaluate",
    "inherited",
    "mla_parameters",
    "operators_for",
    "peaks_of",
    "uniform_woken",
]
