"""Measured tables of aiconfigurator-core, cut to what the fit needs.

    python -m benchmarks.calibration.reduce FOLDER

FOLDER holds one CSV per table, exported from the parquet files of the wheel
aiconfigurator_core-0.12.0 (Apache-2.0): duplicate rows reduced to the least latency,
of the MoE tables every second row. Writes ``data/*.csv.gz`` in the layout of
``shardwright calibrate``. Nothing else of the project reads FOLDER.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

DATA = Path(__file__).parent / "data"
GPUS = {"a100_sxm": "A100-80", "h100_sxm": "H100-SXM", "h200_sxm": "H200"}
DTYPES = {"bfloat16": "bf16", "default": "bf16", "nvfp4": "fp4"}

Raw = dict[str, str]
Row = dict[str, str | float]

CUSTOM_KERNELS = {
    "A100-80": ("vllm/0.14.0", "sglang/0.5.10", "trtllm/1.0.0"),
    "H100-SXM": ("vllm/0.24.0", "sglang/0.5.14", "trtllm/1.3.0rc20"),
    "H200": ("vllm/0.24.0", "sglang/0.5.14", "trtllm/1.3.0rc20"),
}
"""The newest version of every framework; kernels as a captured graph runs them."""

NOT_GATED = {(2688, 1856, 6, 128), (2048, 5120, 22, 512), (1024, 2688, 22, 512)}
"""Experts of two matrices (squared ReLU), as (hidden, intermediate, top_k, experts).

The tables do not say. Hopper's times fit two matrices, those of the A100, an older
run of the collector, three.
"""


def _rows(path: Path) -> list[Raw]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _us(milliseconds: str) -> float:
    return float(f"{float(milliseconds) * 1000:.5g}")


def _dtype(name: str) -> str:
    return DTYPES.get(name, name)


def _gemm(_: str, raw: Raw) -> Iterator[Row]:
    shape = {name: raw[name] for name in ("m", "n", "k")}
    yield {
        "op": "gemm",
        "dtype": _dtype(raw["gemm_dtype"]),
        **shape,
        "latency_us": _us(raw["latency_ms"]),
    }


def _prefill(_: str, raw: Raw) -> Iterator[Row]:
    yield {"op": "prefill_attention", "dtype": "bf16", "sequences": raw["batch_size"],
           "tokens": raw["isl"], "heads": raw["num_heads"],
           "kv_heads": raw["num_key_value_heads"],
           "latency_us": _us(raw["latency_ms"])}  # fmt: skip


def _decode(_: str, raw: Raw) -> Iterator[Row]:
    yield {"op": "decode_attention", "dtype": "bf16", "sequences": raw["batch_size"],
           "context": raw["kv_len"], "heads": raw["num_heads"],
           "kv_heads": raw["num_key_value_heads"],
           "latency_us": _us(raw["latency_ms"])}  # fmt: skip


def _mla(raw: Raw) -> Row:
    return {
        "dtype": _dtype(raw["gemm_type"]),
        "variant": "kv_" + _dtype(raw["kv_cache_dtype"]),
        "heads": raw["num_heads"],
        "sequences": raw["batch_size"],
        "latency_us": _us(raw["latency_ms"]),
    }


def _mla_prefill(_: str, raw: Raw) -> Iterator[Row]:
    yield {"op": "mla_prefill", "tokens": raw["isl"], **_mla(raw)}


def _mla_decode(_: str, raw: Raw) -> Iterator[Row]:
    yield {
        "op": "mla_decode",
        "context": int(raw["isl"]) + int(raw["step"]),
        **_mla(raw),
    }


def _moe(gpu: str, raw: Raw) -> Iterator[Row]:
    names = ("hidden_size", "inter_size", "topk", "num_experts")
    shape = tuple(int(raw[name]) for name in names)
    plain = shape in NOT_GATED and gpu != "A100-80"
    yield {"op": "moe", "dtype": _dtype(raw["moe_dtype"]), "tokens": raw["num_tokens"],
           "hidden": shape[0], "intermediate": shape[1], "top_k": shape[2],
           "experts": shape[3], "tp": raw["moe_tp_size"], "ep": raw["moe_ep_size"],
           "matrices": 2 if plain else 3, "routing": raw["distribution"],
           "latency_us": _us(raw["latency_ms"])}  # fmt: skip


def _nccl(_: str, raw: Raw) -> Iterator[Row]:
    if raw["nccl_dtype"] == "half":
        op = raw["op_name"].replace("alltoall", "all_to_all")
        yield {"op": op, "dtype": "bf16", "variant": "nccl", "ranks": raw["num_gpus"],
               "bytes": 2 * int(raw["message_size"]),
               "latency_us": _us(raw["latency_ms"])}  # fmt: skip


def _custom(gpu: str, raw: Raw) -> Iterator[Row]:
    captured = not raw["kernel_source"].endswith("_eager")
    if raw["fw_ver"] in CUSTOM_KERNELS[gpu] and captured:
        yield {"op": "all_reduce", "dtype": "bf16",
               "variant": raw["fw_ver"].split("/")[0], "ranks": raw["num_gpus"],
               "bytes": 2 * int(raw["message_size"]),
               "latency_us": _us(raw["latency_ms"])}  # fmt: skip


def _a2a(_: str, raw: Raw) -> Iterator[Row]:
    backend = raw["comm_backend"].replace("trtllm_deepep", "trtllm")
    backend = backend.replace("deepep_v2", "vllm_v2").replace("deepep", "vllm")
    yield {"op": f"expert_{raw['phase']}", "variant": backend,
           # results return as bf16, whatever the format of the dispatch
           "dtype": _dtype(raw["comm_dtype"]) if raw["phase"] == "dispatch" else "bf16",
           "tokens": raw["num_tokens"], "hidden": raw["hidden_size"],
           "top_k": raw["topk"], "experts": raw["num_experts"],
           "latency_us": float(f"{float(raw['latency_us']):.5g}")}  # fmt: skip


def _deepep(
    raw: Raw, variant: str, dispatch_us: float, combine_us: float
) -> Iterator[Row]:
    shape = {"variant": variant, "tokens": raw["num_token"],
             "hidden": raw["hidden_size"], "top_k": raw["num_topk"],
             "experts": raw["num_experts"], "nodes": raw["node_num"]}  # fmt: skip
    for phase, dtype, time in (
        ("dispatch", "fp8", dispatch_us),
        ("combine", "bf16", combine_us),
    ):
        row: Row = {"op": f"expert_{phase}", "dtype": dtype, **shape,
                    "latency_us": float(f"{time:.5g}")}  # fmt: skip
        if f"{phase}_sms" in raw:
            row["sms"] = raw[f"{phase}_sms"]
        yield row


def _low_latency(_: str, raw: Raw) -> Iterator[Row]:
    # the older version has the runs over several nodes
    several = raw["version"] == "0.5.0"
    times = float(raw["dispatch_avg_t_us"]), float(raw["combine_avg_t_us"])
    yield from _deepep(raw, "deepep_ll_nodes" if several else "deepep_ll", *times)


def _normal(_: str, raw: Raw) -> Iterator[Row]:
    several = raw["version"] == "0.5.0"
    if several and raw["node_num"] == "1":
        return
    times = [
        float(raw[f"{phase}_transmit_us"]) + float(raw[f"{phase}_notify_us"])
        for phase in ("dispatch", "combine")
    ]
    yield from _deepep(raw, "deepep_nodes" if several else "deepep", *times)


Reader = Callable[[str, Raw], Iterator[Row]]
TABLES: dict[str, tuple[str, Reader]] = {
    "gemm": ("gemm_*", _gemm),
    "prefill_attention": ("context_attention_*", _prefill),
    "decode_attention": ("generation_attention_*", _decode),
    "mla_prefill": ("mla_context_module", _mla_prefill),
    "mla_decode": ("mla_generation_module", _mla_decode),
    "moe": ("moe_[bf]*", _moe),
    "nccl": ("nccl_*", _nccl),
    "all_reduce_kernels": ("custom_allreduce", _custom),
    "expert_exchange": ("moe_a2a_*", _a2a),
    "deepep_low_latency": ("wideep_deepep_ll_*", _low_latency),
    "deepep": ("wideep_deepep_normal_*", _normal),
}


def main() -> int:
    """Write all tables of the folder that is the only argument."""
    folder = Path(sys.argv[1])
    for name, (pattern, reader) in TABLES.items():
        rows: list[Row] = []
        for key, gpu in GPUS.items():
            for path in sorted(folder.glob(f"{key}_{pattern}.csv")):
                # one file of both folders is the same run
                copied = gpu == "H200" and "0.5.6.post2" in path.name
                for raw in [] if copied else _rows(path):
                    rows += [{"gpu": gpu, **row} for row in reader(gpu, raw)]
        print(f"{name}: {len(rows)} rows, {_write(name, rows)} bytes", file=sys.stderr)
    return 0


def _write(name: str, rows: list[Row]) -> int:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    data = gzip.compress(text.getvalue().encode(), 9, mtime=0)
    (DATA / f"{name}.csv.gz").write_bytes(data)
    return len(data)


if __name__ == "__main__":
    sys.exit(main())
