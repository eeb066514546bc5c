"""Curves on measurements that no fit has seen: other sources, other GPU types.

    python -m benchmarks.calibration.transfer

Three tables. Matrix products measured by other projects with other software on the
same GPU types; the same on a GPU type without curves of its own, through the rule of
inheritance; and every measured GPU type predicted from the others by that rule.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from shardwright.cost.operators import (
    NoCurve,
    Operators,
    evaluate,
    inherited,
    operators_for,
    peaks_of,
)
from shardwright.ingest.catalogue import gpu as catalogue_gpu
from shardwright.ingest.operators import measured_operators
from shardwright.planning.calibrate_fit import percent_error

from .fits import DATA, GPUS, tables_of

FloatArray = NDArray[np.float64]

OTHER = DATA / "other" / "gemm.csv.gz"
Row = dict[str, str | float | int]


def other_sources() -> list[tuple[str, ...]]:
    """GPU, source, rows, median error and bias of the bf16 product."""
    with gzip.open(OTHER, "rt", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    found: list[tuple[str, ...]] = []
    for gpu, source in dict.fromkeys((r["gpu"], r["source"]) for r in rows):
        chosen = [r for r in rows if (r["gpu"], r["source"]) == (gpu, source)]
        m, n, k, measured = (
            np.array([float(r[name]) for r in chosen])
            for name in ("m", "n", "k", "latency_us")
        )
        curves = operators_for(catalogue_gpu(gpu))
        error, bias = _errors(curves.gemm_us(m, n, k), measured)
        own = gpu in GPUS
        said = "own curve" if own else f"inherited, {curves.file.confidence} confidence"
        found.append((gpu, source, said, str(len(chosen)), error, bias))
    return found


def _errors(predicted: FloatArray, measured: FloatArray) -> tuple[str, str]:
    error = float(np.median(percent_error(predicted, measured)))
    return f"{error:.1f}", f"{float(np.median(predicted / measured)):.2f}"


def left_out(gpu: str) -> Iterator[tuple[str, ...]]:
    """Every table of a GPU type by curves inherited from the other types."""
    spec = catalogue_gpu(gpu)
    donors = [pair for pair in measured_operators() if pair[0].gpu != gpu]
    curves = Operators(inherited(spec, donors))
    for path in sorted(DATA.glob("*.csv.gz")):
        for table in tables_of(path, gpu):
            key = table.key
            try:
                curve = curves.curve(key.family, key.dtype, key.variant)
            except NoCurve:
                continue
            predicted = evaluate(curve, peaks_of(spec), **table.columns)
            error, bias = _errors(predicted, table.measured_us)
            donor = curve.inherited_from
            own = f"{_own_error(gpu, key.family, key.dtype, key.variant):.1f}"
            yield gpu, str(key), donor, own, error, bias


def _own_error(gpu: str, family: str, dtype: str, variant: str) -> float:
    for file, _ in measured_operators():
        for curve in file.curves:
            wanted = (gpu, family, dtype, variant)
            if (file.gpu, curve.family, curve.dtype, curve.variant) == wanted:
                return curve.held_out.median_ape_percent
    return float("nan")


# reduction of the sources


def reduce(folder: Path) -> None:
    """Write ``data/other/gemm.csv.gz`` from the micro-benchmark tables of FOLDER.

    Vidur (MIT): data/profiling, medians of fp16 PyTorch kernels per layer.
    LLMServingSim (MIT): vLLM's layers on an H100 and an RTX PRO 6000.
    """
    rows = [*_vidur(folder), *_h100(folder), *_rtx(folder)]
    text = io.StringIO()
    names = ("gpu", "source", "m", "n", "k", "latency_us")
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    OTHER.parent.mkdir(exist_ok=True)
    OTHER.write_bytes(gzip.compress(text.getvalue().encode(), 9, mtime=0))


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _row(gpu: str, source: str, m: str, n: int, k: int, us: float) -> Row:
    return {"gpu": gpu, "source": source, "m": m, "n": n, "k": k,
            "latency_us": float(f"{us:.5g}")}  # fmt: skip


def _vidur(folder: Path) -> Iterator[Row]:
    names = {"a100": "A100-80", "h100": "H100-SXM"}
    for raw in _read(folder / "vidur_mlp_per_layer_ms.csv"):
        if raw["device"] not in names:
            continue
        heads, kv, wide, inner, tp = (
            int(raw[c])
            for c in ("n_head", "n_kv_head", "n_embd", "n_expanded_embd", "tp")
        )
        products = {
            "attn_pre_proj_ms": ((heads + 2 * kv) * 128 // tp, wide),
            "attn_post_proj_ms": (wide, heads * 128 // tp),
            "mlp_up_proj_ms": (2 * inner // tp, wide),
            "mlp_down_proj_ms": (wide, inner // tp),
        }
        for column, (n, k) in products.items():
            us = float(raw[column]) * 1000
            yield _row(names[raw["device"]], "vidur", raw["num_tokens"], n, k, us)


def _h100(folder: Path) -> Iterator[Row]:
    for tp in (1, 2, 4):
        products = {"gate_proj": (28672 // tp, 8192), "down_proj": (8192, 28672 // tp),
                    "k_proj": (1024 // tp, 8192)}  # fmt: skip
        name = f"llmservingsim_H100_Llama-3.1-70B_tp{tp}_layers.csv"
        chosen = [r for r in _read(folder / name) if r["layer_name"] in products]
        for raw in chosen[::4]:
            us = float(raw["latency(ns)"]) / 1000
            shape = products[raw["layer_name"]]
            yield _row("H100-SXM", "llmservingsim", raw["input"], *shape, us)


def _rtx(folder: Path) -> Iterator[Row]:
    for tp in (1, 2):
        products = {"qkv_proj": (6144 // tp, 4096), "o_proj": (4096, 4096 // tp),
                    "gate_up_proj": (28672 // tp, 4096),
                    "down_proj": (4096, 14336 // tp)}  # fmt: skip
        for raw in _read(
            folder / f"llmservingsim_RTXPRO6000_Llama-3.1-8B_tp{tp}_dense.csv"
        ):
            if raw["layer"] in products:
                shape, us = products[raw["layer"]], float(raw["time_us"])
                yield _row(
                    "RTX-PRO-6000-SE", "llmservingsim", raw["tokens"], *shape, us
                )


def main() -> int:
    """Print the tables, or reduce the folder that is the only argument."""
    if len(sys.argv) > 1:
        reduce(Path(sys.argv[1]))
        return 0
    head = ("GPU", "source", "curve", "rows", "error %", "bias")
    print("bf16 matrix products measured by others (bias: predicted/measured)\n")
    print(tabulate(other_sources(), head, disable_numparse=True))
    print("\nEvery GPU type from the others, by the rule of inheritance\n")
    rows = [row for gpu in GPUS for row in left_out(gpu)]
    head = ("GPU", "curve", "from", "own held out %", "inherited %", "bias")
    print(tabulate(rows, head, disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
