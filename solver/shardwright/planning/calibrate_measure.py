"""Timing of operators on this machine's GPUs into the CSV of ``calibrate``.

PyTorch is imported only when something is measured. Single-GPU operators are timed as
ten launches captured in one CUDA graph, all-reduce as twenty calls between barriers;
medians of twenty repeats. Inputs stay in place between launches: what fits the L2
cache is read from it.
"""

from __future__ import annotations

import csv
import importlib
import io
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardwright.schema.errors import FieldError, InvalidInstance

LAUNCHES, REPEATS, CALLS = 10, 20, 20
MATRICES = (
    (1024, 4096), (4096, 1024), (4096, 4096), (6144, 4096), (4096, 14336),
    (28672, 4096), (8192, 1024), (1280, 8192), (8192, 8192), (10240, 8192),
    (8192, 28672), (57344, 8192), (2112, 7168), (7168, 2048), (7168, 16384),
    (2560, 2560),
)  # fmt: skip
ROWS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
HEADS = ((4, 1), (8, 1), (8, 8), (16, 2), (32, 4), (32, 8), (64, 8))
PROMPTS = ((1, 128), (1, 512), (1, 2048), (1, 8192), (1, 16384), (8, 512), (8, 2048))
CACHES = (
    (1, 1024), (1, 16384), (8, 4096), (32, 1024), (64, 4096), (256, 1024), (256, 4096),
)  # fmt: skip
MESSAGES = tuple(2**power for power in range(10, 29))
HEADER = ("op", "dtype", "variant", "m", "n", "k", "sequences", "tokens", "context",
          "heads", "kv_heads", "head_dim", "bytes", "ranks", "latency_us")  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """One measurement to make: the operator and its columns."""

    op: str
    columns: dict[str, int]
    variant: str = ""
    dtype: str = field(default="bf16")


def single_gpu_shapes() -> Iterator[Shape]:
    """What is timed on one GPU, in order."""
    for n, k in MATRICES:
        for m in ROWS:
            yield Shape("gemm", {"m": m, "n": n, "k": k})
    for heads, kv_heads in HEADS:
        widths = {"heads": heads, "kv_heads": kv_heads, "head_dim": 128}
        for sequences, tokens in PROMPTS:
            prompt = {"sequences": sequences, "tokens": tokens}
            yield Shape("prefill_attention", {**prompt, **widths})
        for sequences, context in CACHES:
            cached = {"sequences": sequences, "context": context}
            yield Shape("decode_attention", {**cached, **widths})


def measure(out: Path, said: Callable[[str], None]) -> int:
    """Time everything that this machine can and write ``out``; the number of rows.

    ``said`` is told what is being timed. Raises InvalidInstance without PyTorch or
    without a GPU that it can use.
    """
    torch = _torch()
    rows = []
    shapes = list(single_gpu_shapes())
    said(f"{torch.cuda.get_device_name(0)}: {len(shapes)} shapes on one GPU")
    for shape in shapes:
        try:
            rows.append(_row(shape, _time_us(torch, _runnable(torch, shape))))
        except torch.cuda.OutOfMemoryError:
            said(f"left out, no memory for it: {shape.op} {shape.columns}")
    for ranks in (n for n in (2, 4, 8) if n <= torch.cuda.device_count()):
        said(f"all-reduce over {ranks} GPUs")
        rows += all_reduce_rows(torch, ranks)
    _write(out, rows)
    return len(rows)


def _torch() -> Any:
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise _unable("no PyTorch") from None
    if not torch.cuda.is_available():
        raise _unable("PyTorch sees no GPU")
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if release < (2, 5):
        raise _unable(f"PyTorch {torch.__version__} (grouped attention needs 2.5)")
    return torch


def _unable(found: str) -> InvalidInstance:
    allowed = (
        "a machine with PyTorch and a GPU that it can use; measurements made elsewhere "
        "are read from a CSV (docs/calibration.md)"
    )
    return InvalidInstance("command line", [FieldError("--measure", found, allowed)])


def _row(shape: Shape, latency_us: float) -> dict[str, Any]:
    head = {"op": shape.op, "dtype": shape.dtype, "variant": shape.variant}
    return {**head, **shape.columns, "latency_us": f"{latency_us:.5g}"}


def _runnable(torch: Any, shape: Shape) -> Callable[[], Any]:
    """The operator on tensors of its shape, as a call without arguments."""
    c = shape.columns
    kind = {"dtype": torch.bfloat16, "device": "cuda"}
    if shape.op == "gemm":
        a, b = torch.randn(c["m"], c["k"], **kind), torch.randn(c["n"], c["k"], **kind)
        return lambda: torch.nn.functional.linear(a, b)
    new = c.get("tokens", 1)
    past = c.get("context", new)
    query = torch.randn(c["sequences"], c["heads"], new, c["head_dim"], **kind)
    cache = (c["sequences"], c["kv_heads"], past, c["head_dim"])
    keys, values = torch.randn(*cache, **kind), torch.randn(*cache, **kind)
    attend = torch.nn.functional.scaled_dot_product_attention
    causal = shape.op == "prefill_attention"
    return lambda: attend(query, keys, values, is_causal=causal, enable_gqa=True)


def _time_us(torch: Any, run: Callable[[], Any]) -> float:
    """Median time of one launch inside a captured graph."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(LAUNCHES):
            run()
    graph.replay()
    return _median_us(torch, graph.replay) / LAUNCHES


def _median_us(torch: Any, run: Callable[[], Any]) -> float:
    times = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1000)
    return float(statistics.median(times))


def all_reduce_rows(torch: Any, ranks: int) -> list[dict[str, Any]]:
    """All-reduce of every message size over ``ranks`` GPUs, one process each."""
    spawn = importlib.import_module("torch.multiprocessing").spawn
    with tempfile.TemporaryDirectory() as folder:
        spawn(_all_reduce_rank, args=(ranks, folder), nprocs=ranks)
        lines = (Path(folder) / "times").read_text(encoding="utf-8").split()
    shapes = [
        Shape("all_reduce", {"bytes": size, "ranks": ranks}, "nccl")
        for size in MESSAGES
    ]
    pairs = zip(shapes, lines, strict=True)
    return [_row(shape, float(time)) for shape, time in pairs]


def _all_reduce_rank(rank: int, ranks: int, folder: str) -> None:
    """One process of an all-reduce; rank 0 leaves the times in ``folder``."""
    torch = importlib.import_module("torch")
    distributed = importlib.import_module("torch.distributed")
    torch.cuda.set_device(rank)
    distributed.init_process_group(
        "nccl", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks
    )
    times = []
    for size in MESSAGES:
        message = torch.zeros(size // 2, dtype=torch.bfloat16, device="cuda")

        def calls(message: Any = message) -> None:
            for _ in range(CALLS):
                distributed.all_reduce(message)

        calls()
        distributed.barrier()
        times.append(_median_us(torch, calls) / CALLS)
    distributed.destroy_process_group()
    if rank == 0:
        Path(folder, "times").write_text("\n".join(map(str, times)), encoding="utf-8")


def _write(out: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, HEADER, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(out, text.getvalue())


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises InvalidInstance where it cannot be."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        allowed = f"a file that can be written ({reason})"
        found = FieldError("--output", repr(str(path)), allowed)
        raise InvalidInstance("command line", [found]) from error
    finally:
        partial.unlink(missing_ok=True)
