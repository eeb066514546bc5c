"""From the columns that people measure to the ones that the forms take.

``COLUMNS`` is the layout of a table of measurements per family; ``derive`` adds what
follows from them: bytes, copies, shares of a ring's volume, woken experts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from shardwright.cost.operator_forms import (
    RANKS_OF_A_NODE,
    VALUE_BYTES,
    distinct_others,
    mla_parameters,
)
from shardwright.schema.operators import OperatorFamily

FloatArray = NDArray[np.float64]

_EXCHANGE = {"tokens": None, "hidden": None, "top_k": None, "experts": None,
             "nodes": 1.0, "sms": 20.0}  # fmt: skip

COLUMNS: dict[OperatorFamily, dict[str, float | None]] = {
    "gemm": {"m": None, "n": None, "k": None},
    "prefill_attention": {
        "sequences": None, "tokens": None, "heads": None, "kv_heads": None,
        "head_dim": 128.0,
    },
    "decode_attention": {
        "sequences": None, "context": None, "heads": None, "kv_heads": None,
        "head_dim": 128.0,
    },
    "mla_prefill": {"sequences": None, "tokens": None, "heads": None},
    "mla_decode": {"sequences": None, "context": None, "heads": None},
    "moe": {
        "tokens": None, "hidden": None, "intermediate": None, "top_k": None,
        "experts": None, "tp": 1.0, "ep": 1.0, "matrices": 3.0,
    },
    "all_reduce": {"bytes": None, "ranks": None},
    "all_gather": {"bytes": None, "ranks": None},
    "reduce_scatter": {"bytes": None, "ranks": None},
    "all_to_all": {"bytes": None, "ranks": None},
    "expert_dispatch": dict(_EXCHANGE),
    "expert_combine": dict(_EXCHANGE),
}  # fmt: skip
"""Columns of a family; a number stands for the value of a column left out."""

FAMILY_KEYS: dict[OperatorFamily, tuple[str, ...]] = {
    "gemm": ("n", "k"),
    "prefill_attention": ("heads",),
    "decode_attention": ("heads",),
    "mla_prefill": ("heads",),
    "mla_decode": ("heads",),
    "moe": ("hidden", "intermediate", "top_k", "experts"),
    "all_reduce": ("bytes",),
    "all_gather": ("bytes",),
    "reduce_scatter": ("bytes",),
    "all_to_all": ("bytes",),
    "expert_dispatch": ("tokens",),
    "expert_combine": ("tokens",),
}
"""Rows that agree in these columns are held out together."""


MOVING: tuple[OperatorFamily, ...] = (
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
    "expert_dispatch",
    "expert_combine",
)
"""Families that move data only: any GPU has them in any number format."""


def derive(
    family: OperatorFamily, variant: str, dtype: str, raw: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """The columns of a form from those of a table; ``raw`` is not changed.

    For ``moe``, ``raw`` has ``woken`` and ``pairs`` of the busiest rank besides.
    """
    shapes = dict(raw)
    if family in ("prefill_attention", "mla_prefill"):
        shapes.setdefault("attended", raw["tokens"] / 2)
    if family == "decode_attention":
        shapes.setdefault("cache_bytes", np.full_like(raw["heads"], VALUE_BYTES[dtype]))
    if family in ("mla_prefill", "mla_decode"):
        shapes.setdefault("matrix_parameters", mla_parameters(raw["heads"]))
        # the variant of a latent-attention block is the format of its cache
        cache_bytes = VALUE_BYTES[variant.removeprefix("kv_")]
        shapes["cache_bytes"] = np.full_like(raw["heads"], cache_bytes)
    if family == "moe":
        shapes["intermediate"] = raw["intermediate"] / raw["tp"]
    if "ranks" in raw and "bytes" in raw:
        trips = 2 if family == "all_reduce" else 1
        shapes["volume_share"] = trips * (raw["ranks"] - 1) / raw["ranks"]
    if family in ("expert_dispatch", "expert_combine"):
        shapes.update(_exchanged(family, variant, dtype, raw))
    return shapes


def _exchanged(
    family: OperatorFamily, variant: str, dtype: str, raw: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """Bytes that leave one GPU, and those that leave its node.

    Low-latency kernels send a copy per expert; the others one per rank that holds
    an expert of the token. Results are combined as bf16.
    """
    nodes, top_k = raw["nodes"], raw["top_k"]
    ranks = nodes * RANKS_OF_A_NODE
    token_bytes = raw["hidden"] * VALUE_BYTES[dtype]
    if is_low_latency(variant):
        copies = top_k if variant.endswith("nodes") else top_k * (1 - 1 / ranks)
    elif variant.endswith("nodes"):
        copies = np.minimum(top_k, RANKS_OF_A_NODE)
    else:
        copies = distinct_others(top_k, ranks)
    sent = raw["tokens"] * token_bytes
    across = np.where(nodes > 1, distinct_others(top_k, np.maximum(nodes, 1)), 0.0)
    return {
        "bytes": sent * copies,
        "bytes_across": sent * across,
        "local_experts": raw["experts"] / ranks,
    }


def is_low_latency(variant: str) -> bool:
    """Whether an exchange sends a copy per expert: the names that say ``ll``."""
    return "ll" in variant.split("_")


def uniform_woken(tokens: FloatArray, top_k: float, experts: float) -> FloatArray:
    """Experts that uniform routing of ``tokens`` wakes: E·(1 − (1 − k/E)^tokens)."""
    asleep: FloatArray = (1 - top_k / experts) ** tokens
    return experts * (1 - asleep)
