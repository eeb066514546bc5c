"""Number formats, engines and eras in the words of published tables."""

from __future__ import annotations

import re
from typing import Any

from shardwright.planning.runs import Row
from shardwright.schema.model import ModelSpec, MoeFfn, Quantization

_NEW_ERA = "2025-06"
"""Engines released before are another piece of software: vLLM's V0 scheduler,
TensorRT-LLM's engine builder."""

_FORMATS = (
    ("fp4|nvfp4|mxfp4", "fp4"), ("int4|q4|awq|gptq|w4", "int4"), ("fp8|f8", "fp8"),
    ("int8|w8|q8", "int8"), ("bf16|fp16|float16|f16|half", "bf16"),
)  # fmt: skip


def number_format(text: str) -> str | None:
    """A format of shardwright, None where the text names none."""
    return next((f for rule, f in _FORMATS if re.search(rule, text)), None)


def published_format(row: Row) -> str | None:
    """Format of the weights as the row or the model's name says it."""
    return number_format(row.weights) or number_format(row.model.lower())


def weight_format(row: Row) -> str:
    """Format of the weights; not published: 16 bit."""
    return published_format(row) or "bf16"


def cache_format(row: Row, weights: str, engine: str) -> str:
    """Format of the KV cache; serving recipes pair fp8 with fp8 and fp4 weights."""
    given = number_format(row.kv)
    if given in ("bf16", "fp8", "int8"):
        return given
    paired = weights in ("fp8", "fp4") and not engine.startswith("vllm-2024")
    return "fp8" if paired else "bf16"


def deployed(spec: ModelSpec, weights: str) -> ModelSpec:
    """The model as checkpoints in a format quantise it.

    4-bit checkpoints of models with experts leave the attention alone.
    """
    has_experts = any(isinstance(k.ffn, MoeFfn) for k in spec.layer_kinds)
    published = spec.quantization
    if weights not in ("fp4", "int4") or not has_experts:
        return spec
    if published is not None and published.dtype == weights:
        return spec
    parts: Any = ("dense_ffn", "shared_experts", "experts")
    own = Quantization(dtype=weights, block=None, scale_bytes=2, parts=parts)  # type: ignore[arg-type]
    return spec.model_copy(update={"quantization": own})


def engine(row: Row) -> str:
    """Engine and era, as the calibration lists them; unknown ones are generic."""
    text = f"{row.engine} {row.version}".lower()
    if re.search(r"trt|tensorrt|lmdeploy|turbomind|llama\.cpp|cuda", text):
        name, first = "trtllm", (1, 0)
    elif "sglang" in text:
        return "sglang"
    else:
        name, first = "vllm", (0, 8)
    if not _old(row, first):
        return name
    amd = name == "vllm" and row.gpu.upper().startswith("MI")
    return f"{name}-2024-rocm" if amd else f"{name}-2024"


def _old(row: Row, first: tuple[int, int]) -> bool:
    if re.match(r"\d{4}", row.date):
        return row.date < _NEW_ERA
    found = re.search(r"(\d+)\.(\d+)", row.version)
    if found is None:
        return False
    return (int(found[1]), int(found[2])) < first
