"""The end-to-end constants that are fitted: meaning, prior, physical bounds.

A constant is a logarithm's distance from its prior; the prior's spread says how far
measurement may move it. Priors are hand-set from data sheets, operator measurements
and the engines' designs, before any fit; fitted values never leave the bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shardwright.cost.serving import Client
from shardwright.ingest import catalogue
from shardwright.schema.cluster import Calibration, EngineCosts, GpuSpec

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Constant:
    """One fitted constant: prior, its spread (of the logarithm), bounds, unit."""

    name: str
    prior: float
    spread: float
    low: float
    high: float
    unit: str
    meaning: str


def _constants() -> list[Constant]:
    found: list[Constant] = []

    def add(name: str, prior: float, spread: float, low: float, high: float,
            unit: str, meaning: str) -> None:  # fmt: skip
        found.append(Constant(name, prior, spread, low, high, unit, meaning))

    for name, hbm, wide, narrow, factor in _CLASSES:
        shared = name.startswith("mi")
        add(f"{name}.hbm", hbm, 0.1, 0.4, 0.92, "share", "HBM bandwidth sustained")
        what = "FLOP/s sustained" if shared or not narrow else "16-bit FLOP/s sustained"
        add(f"{name}.mm16", wide, 0.2, 0.2, 0.85, "share", what)
        if narrow and not shared:
            add(
                f"{name}.mm8",
                narrow,
                0.2,
                0.15,
                0.85,
                "share",
                "8-bit FLOP/s sustained",
            )
        if name != "hopper":
            add(f"{name}.overhead", factor, 0.2, 0.3, 4.0, "ratio",
                "fixed costs over Hopper's")  # fmt: skip
    add("blackwell.mm4", 0.35, 0.3, 0.1, 0.85, "share", "4-bit FLOP/s sustained")
    add("kv_ratio", 1.0, 0.15, 0.6, 1.2, "ratio", "KV reads over weight reads")
    add("attention_ratio", 0.8, 0.3, 0.3, 1.3, "ratio", "attention FLOP/s over matmul")
    add(
        "link.nvlink",
        0.6,
        0.25,
        0.3,
        0.85,
        "share",
        "NVLink, Infinity Fabric sustained",
    )
    add("link.pcie", 0.5, 0.3, 0.2, 0.9, "share", "PCIe bandwidth sustained")
    add("alpha.two", 10.0, 0.3, 3.0, 40.0, "us", "all-reduce start-up over 2 ranks")
    add("alpha.doubling", 5.0, 0.3, 0.5, 20.0, "us", "and more for each doubling")
    add("alpha.pcie", 2.5, 0.3, 1.0, 10.0, "ratio", "start-up over PCIe to NVLink's")
    add("exponent", 1.5, 0.2, 1.0, 8.0, "1", "overlap of compute and memory")
    add("accesses", 14.0, 0.4, 4.0, 40.0, "1", "reads or writes of the hidden state")
    add("unpacking", 1.3, 0.15, 1.0, 2.0, "ratio", "weight-only formats' slower reads")
    add(
        "expert_overhead",
        25.0,
        0.3,
        5.0,
        80.0,
        "us",
        "routing, sorting, grouped launch",
    )
    add(
        "expert_overhead.trtllm", 25.0, 0.3, 5.0, 80.0, "us", "the same in TensorRT-LLM"
    )
    add("admission", 1.0, 0.6, 0.5, 20.0, "steps", "wait for the scheduler")
    for name, layer, step, sequence, request, factor in _ENGINES:
        old = name.endswith("-2024")
        add(f"{name}.layer", layer, 0.4, 2.0, 60.0, "us", "fixed cost of a layer")
        add(f"{name}.step", step, 0.5, 50.0, 6000.0, "us", "fixed cost of a step")
        add(
            f"{name}.sequence",
            sequence,
            0.4,
            0.5,
            150.0,
            "us",
            "cost of a sequence-step",
        )
        if name != "vllm-2024":
            add(f"{name}.request", request, 0.6, 2.0, 300.0, "ms", "once per request")
        if old:
            continue
        add(
            f"{name}.cold_start",
            0.9,
            0.8,
            0.02,
            20.0,
            "s",
            "wait of a run's first requests",
        )
        if factor:
            add(
                f"{name}.compute",
                factor,
                0.15,
                0.5,
                1.3,
                "ratio",
                "FLOP/s of its kernels",
            )
    add("vllm-2024-rocm.compute", 0.5, 0.4, 0.1, 1.0, "ratio",
        "FLOP/s of its kernels on AMD")  # fmt: skip
    add(
        "client.start_share",
        0.1,
        0.15,
        0.01,
        0.9,
        "share",
        "requests of the first burst",
    )
    add(
        "client.convoy_share", 0.1, 0.4, 0.01, 1.0, "share", "prompts admitted together"
    )
    return found


_CLASSES = (
    ("ampere", 0.80, 0.70, 0.0, 1.3),
    ("hopper", 0.82, 0.62, 0.52, 1.0),
    ("blackwell", 0.75, 0.60, 0.50, 0.9),
    ("mi300", 0.65, 0.45, 0.40, 1.6),
    ("mi355", 0.60, 0.45, 0.40, 1.4),
    ("ada-pcie", 0.83, 0.60, 0.0, 0.9),
)
_ENGINES = (
    ("vllm", 12.0, 500.0, 8.0, 40.0, 0.9),
    ("vllm-2024", 16.0, 2000.0, 50.0, 40.0, 0.9),
    ("sglang", 10.0, 500.0, 8.0, 40.0, 0.9),
    ("trtllm", 9.0, 500.0, 6.0, 40.0, 0.0),
    ("trtllm-2024", 9.0, 800.0, 3.0, 8.0, 0.0),
)
CONSTANTS = _constants()
COUNT = len(CONSTANTS)
_SAME_AS = {"hopper-pcie": "hopper", "ampere-pcie": "ampere", "ascend": "ampere"}


def physical(theta: FloatArray) -> dict[str, float]:
    """Values of the constants: the prior moved by theta spreads, within bounds."""
    return {
        c.name: float(np.clip(c.prior * np.exp(c.spread * t), c.low, c.high))
        for c, t in zip(CONSTANTS, theta, strict=True)
    }


def theta_bounds() -> tuple[FloatArray, FloatArray]:
    """Bounds of theta."""
    low = [np.log(c.low / c.prior) / c.spread for c in CONSTANTS]
    high = [np.log(c.high / c.prior) / c.spread for c in CONSTANTS]
    return np.array(low), np.array(high)


def client(v: dict[str, float]) -> Client:
    """How clients behave."""
    return Client(v["client.start_share"], v["client.convoy_share"])


def engines(v: dict[str, float]) -> dict[str, EngineCosts]:
    """Costs of the engines, by engine and era."""
    found = {}
    for name, *_ in _ENGINES:
        now = name.removesuffix("-2024")
        found[name] = EngineCosts(
            layer_overhead_us=v[f"{name}.layer"],
            expert_overhead_us=v.get(f"expert_overhead.{now}", v["expert_overhead"]),
            step_overhead_us=v[f"{name}.step"],
            sequence_overhead_us=v[f"{name}.sequence"],
            request_overhead_ms=v.get(f"{name}.request", v[f"{now}.request"]),
            admission_steps=v["admission"],
            cold_start_s=v[f"{now}.cold_start"],
            compute_factor=v.get(f"{now}.compute", 1.0),
        )
    found["vllm-2024-rocm"] = found["vllm-2024"].model_copy(
        update={"compute_factor": v["vllm-2024-rocm.compute"]}
    )
    return found


def calibration(base: Calibration, v: dict[str, float]) -> Calibration:
    """A class's constants under fitted values; memory and network stay."""
    name = _SAME_AS.get(base.name, base.name)
    factor = v.get(f"{name}.overhead", 1.0)
    pcie = base.name.endswith("pcie")
    link = "pcie" if pcie else "nvlink"
    start = factor * (v["alpha.pcie"] if pcie else 1.0)
    wide = v[f"{name}.mm16"]
    narrow = v.get(f"{name}.mm8", wide)
    formats = {"bf16": wide, "fp16": wide, "fp8": narrow, "int8": narrow,
               "fp4": v["blackwell.mm4"], "int4": v["blackwell.mm4"]}  # fmt: skip
    hbm = v[f"{name}.hbm"]
    return base.model_copy(
        update={
            "hbm_efficiency": hbm,
            "kv_read_efficiency": min(hbm * v["kv_ratio"], 0.92),
            "matmul_efficiency": {
                k: formats[k] for k in base.matmul_efficiency if k in formats
            },
            "attention_efficiency": min(wide * v["attention_ratio"], 0.85),
            "link_efficiency": v[f"link.{link}"],
            "allreduce_latency_us": {
                2**k: start * (v["alpha.two"] + (k - 1) * v["alpha.doubling"])
                for k in range(1, 8)
            },
            "roofline_exponent": v["exponent"],
            "hidden_accesses": v["accesses"],
            "attention_ramp_tokens": ATTENTION_RAMP_TOKENS,
            "unpacking_factor": v["unpacking"],
            "expert_tile_rows": EXPERT_TILE_ROWS,
            "overhead_factor": factor,
            "engines": engines(v),
        }
    )


EXPERT_TILE_ROWS = 8.0
"""Rows of the smallest tile of a grouped GEMM."""

ATTENTION_RAMP_TOKENS = 745.0
"""Half of the 1,490 tokens at which prefill attention reaches half its rate."""


def gpus(names: Sequence[str], v: dict[str, float]) -> dict[str, GpuSpec]:
    """GPU types of the catalogue under fitted values."""
    found = {}
    for name in set(names):
        spec = catalogue.gpu(name)
        own = calibration(spec.calibration, v)
        found[name] = spec.model_copy(update={"calibration": own})
    return found
