"""Measured operators of aiconfigurator-core 0.12 (optional extra ``silicon``).

The package is NVIDIA's (Apache-2.0): latencies of kernels and collectives collected on
GPUs, one table per system, engine and version. Only its operator look-up is used, by
one model-less handle per table; its laws of batching, memory and search are not.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from typing import Any

from shardwright.cost.measured import (
    AllGather,
    AllReduce,
    DecodeAttention,
    Elementwise,
    Embedding,
    Exchange,
    Experts,
    Gemm,
    LatentBlock,
    NotMeasured,
    Operator,
    PrefillAttention,
)

PACKAGE, RELEASE = "aiconfigurator-core", "0.12"
SYSTEMS = {
    "A100-80": "a100_sxm",
    "A100-40": "a100_sxm",
    "H100-SXM": "h100_sxm",
    "H200": "h200_sxm",
    "B200": "b200_sxm",
    "B300": "b300_sxm",
    "GB200": "gb200",
    "GB300": "gb300",
    "L40S": "l40s",
    "RTX-PRO-6000-SE": "rtx_pro_6000_server",
}
"""Catalogue name of a GPU type -> the system whose tables hold for it."""

_MEASURED = ("silicon", "mixed")
_FORMULAS = (Elementwise, Embedding)
_LONGEST = 100
_SKEW, _SKEW_OF_MANY, _MANY = "power_law_1.2", "power_law_1.01", 256
"""Exponent of the experts' loads: what the package takes for DeepSeek's 256 experts is
flatter than for the others."""
_GEMM = {
    "bf16": "bfloat16",
    "fp16": "bfloat16",
    "fp8": "fp8",
    "int8": "int8_wo",
    "int4": "int4_wo",
    "fp4": "nvfp4",
}
_KV = {"bf16": "bfloat16", "fp16": "bfloat16", "fp8": "fp8", "int8": "int8"}


def installed() -> bool:
    """Whether the extra is there, in the release whose look-up this module knows."""
    if importlib.util.find_spec("aiconfigurator_core") is None:
        return False
    return version(PACKAGE).startswith(f"{RELEASE}.")


@lru_cache(maxsize=16)
def measured_system(gpu: str, engine: str) -> MeasuredSystem:
    """The tables of a GPU type under an engine. NotMeasured where there are none."""
    if gpu not in SYSTEMS:
        raise NotMeasured(
            f"no tables for {gpu}; there are some for {', '.join(SYSTEMS)}"
        )
    system = SYSTEMS[gpu]
    with quiet():
        from aiconfigurator_core.sdk.perf_database import get_database

        database = get_database(system, engine, "current")
    if database is None:
        raise NotMeasured(f"no current tables of {engine} on {system}")
    return MeasuredSystem(system, engine, database)


@dataclass(frozen=True, eq=False)
class MeasuredSystem:
    """One table of the package."""

    system: str
    engine: str
    database: Any

    @property
    def identity(self) -> dict[str, str]:
        """Package, system, engine and version of the tables."""
        return {
            PACKAGE: version(PACKAGE),
            "system": self.system,
            "engine": self.engine,
            "engine_version": str(self.database.version),
        }

    @property
    def largest_group(self) -> int:
        """GPUs of a node: collectives beyond are extrapolated, not measured."""
        return int(self.database.system_spec["node"]["num_gpus_per_node"])

    @cached_property
    def _handle(self) -> Any:
        with quiet():
            from aiconfigurator_core.sdk import EngineHandle

            return EngineHandle.for_database(self.database)

    @cached_property
    def _texts(self) -> dict[Operator, str]:
        return {}

    def seconds(self, operator: Operator, tokens: int) -> float:
        """Time of one call. NotMeasured where the tables have none for its kind."""
        try:
            with quiet():
                [found] = self._handle.evaluate_ops_json(
                    self._text(operator), **_at(operator, tokens)
                )
        except NotMeasured:
            raise
        except Exception as error:  # the package raises many kinds
            raise NotMeasured(self._why(operator, _first_line(error))) from error
        _, latency_ms, _, source = found
        if source not in _MEASURED and not isinstance(operator, _FORMULAS):
            raise NotMeasured(self._why(operator, f"its answer is {source}"))
        return float(latency_ms) * 1e-3

    def _why(self, operator: Operator, reason: str) -> str:
        known = self.identity
        table = f"{known['system']} {known['engine']} {known['engine_version']}"
        return f"{table} lacks {operator.name} ({_widths(operator)}): {reason}"

    def _text(self, operator: Operator) -> str:
        if operator not in self._texts:
            with quiet():
                self._texts[operator] = self._json(operator)
        return self._texts[operator]

    def _json(self, operator: Operator) -> str:
        from aiconfigurator_core.sdk.engine import (
            _resolve_attention_lane_orders,
            build_ops_json,
        )

        found = _package_operator(operator, self.engine)
        _resolve_attention_lane_orders([found], self.database, None)
        return str(build_ops_json([found]))


def _widths(operator: Operator) -> str:
    return ", ".join(f"{name} {value}" for name, value in asdict(operator).items())


def _at(operator: Operator, tokens: int) -> dict[str, Any]:
    """Where the package evaluates an operator."""
    match operator:
        case (
            DecodeAttention(context=context) | LatentBlock(decode=True, context=context)
        ):
            return {"is_context": False, "batch_size": tokens, "s": context}
    if isinstance(operator, PrefillAttention | LatentBlock):
        pieces = max(1, tokens // operator.piece)
        piece = min(tokens, operator.piece)
        before = max(0, operator.attended - piece // 2)
        return {"is_context": True, "batch_size": pieces, "s": piece, "prefix": before}
    return {"is_context": True, "batch_size": 1, "s": 1, "x": tokens}


def _package_operator(operator: Operator, engine: str) -> Any:
    """The package's own operator, counted once."""
    from aiconfigurator_core.sdk import operations as ops

    match operator:
        case Gemm(outer, inner, dtype, block):
            return ops.GEMM("gemm", 1, outer, inner, _gemm_mode(dtype, block))
        case Elementwise(read, written):
            return ops.ElementWise("elementwise", 1, read, written, 0.8)
        case Embedding(rows, width):
            return ops.Embedding("embedding", 1, rows, width, 0.3)
        case AllReduce(width, ranks):
            return ops.CustomAllReduce("all_reduce", 1, width, ranks)
        case AllGather(width, ranks):
            return ops.NCCL("all_gather", 1, "all_gather", width, ranks, _half())
        case LatentBlock():
            return _latent(operator)
        case PrefillAttention() | DecodeAttention():
            return _attention(operator)
        case Experts() | Exchange():
            return _routed(operator, engine)


def _attention(operator: PrefillAttention | DecodeAttention) -> Any:
    from aiconfigurator_core.sdk import common
    from aiconfigurator_core.sdk import operations as ops

    heads = (operator.heads, operator.kv_heads)
    cache = common.KVCacheQuantMode[_KV[operator.kv_dtype]]
    more = {"head_size": operator.head_dim, "use_qk_norm": operator.qk_norm}
    if isinstance(operator, DecodeAttention):
        return ops.GenerationAttention("decode", 1, *heads, cache, **more)
    compute = common.FMHAQuantMode.bfloat16
    more["window_size"] = operator.window
    return ops.ContextAttention("prefill", 1, *heads, cache, compute, **more)


def _latent(operator: LatentBlock) -> Any:
    from aiconfigurator_core.sdk import common
    from aiconfigurator_core.sdk import operations as ops

    return ops.MLAModule(
        "latent",
        1,
        not operator.decode,
        operator.heads,
        common.KVCacheQuantMode[_KV[operator.kv_dtype]],
        common.FMHAQuantMode.bfloat16,
        _gemm_mode(operator.dtype, operator.block),
        native_num_heads=operator.all_heads,
    )


def _routed(operator: Experts | Exchange, engine: str) -> Any:
    from aiconfigurator_core.sdk import operations as ops

    r, mode = operator, _expert_mode(operator.dtype, operator.block)
    layout = (r.moe_tp, r.ep)
    if isinstance(r, Experts):
        widths = (r.hidden, r.intermediate, r.top_k, r.experts)
        more = {"is_gated": r.gated}
        skew = _SKEW if r.experts < _MANY else _SKEW_OF_MANY
        return ops.MoE("experts", 1, *widths, *layout, mode, skew, r.attn_dp, **more)
    widths_of_tokens = (r.hidden, r.top_k, r.experts)
    how = {"quant_mode": mode, "backend": engine}
    return ops.MoEDispatch(
        "exchange", 1, *widths_of_tokens, *layout, r.attn_dp, r.before, **how
    )


def _half() -> Any:
    from aiconfigurator_core.sdk import common

    return common.CommQuantMode.half


def _gemm_mode(dtype: str, block: int) -> Any:
    from aiconfigurator_core.sdk import common

    return common.GEMMQuantMode["fp8_block" if _blocked(dtype, block) else _GEMM[dtype]]


def _expert_mode(dtype: str, block: int) -> Any:
    from aiconfigurator_core.sdk import common

    name = "fp8_block" if _blocked(dtype, block) else _GEMM[dtype]
    if name not in common.MoEQuantMode.__members__:
        raise NotMeasured(f"experts in {dtype} are not measured")
    return common.MoEQuantMode[name]


def _blocked(dtype: str, block: int) -> bool:
    return dtype == "fp8" and block > 0


def _first_line(error: Exception) -> str:
    """The package's reason without its paths and prefixes."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    line = line.removeprefix("perf database error: ").split(" at /")[0]
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The package prints dozens of lines about rows that nobody asked for."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
