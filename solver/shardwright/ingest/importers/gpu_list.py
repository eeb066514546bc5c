"""``nvidia-smi --query-gpu=... --format=csv`` and ``nvidia-smi -L``."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shardwright.ingest.importers.facts import Kind, NodeFacts
from shardwright.ingest.importers.nccl_xml import bus_id
from shardwright.ingest.importers.text import SourceText
from shardwright.ingest.refuse import nearest, shown

_COLUMNS = {
    "index": "index",
    "name": "name",
    "gpu_name": "name",
    "uuid": "uuid",
    "gpu_uuid": "uuid",
    "pci.bus_id": "bus",
    "gpu_bus_id": "bus",
    "memory.total": "memory",
}
_LISTED = re.compile(r"GPU (\d{1,4}): (.+?) \(UUID: (GPU-[0-9a-fA-F-]{8,60})\)\s*$")
_UUID = re.compile(r"GPU-[0-9a-fA-F-]{8,60}")
_BROKEN = re.compile(
    r"\[(unknown error|gpu is lost|gpu requires reset)\]", re.IGNORECASE
)
_MEMORY = re.compile(r"(\d{1,8})( MiB)?")
_SMALLEST_MIB = 1024
"""Without units or head, a whole number from here on is memory, below it an index."""
MAX_GPUS_OF_NODE = 1024


@dataclass(frozen=True)
class _Gpu:
    line: int
    values: dict[str, str]


def is_gpu_list(text: str) -> bool:
    """Whether the first line is one of a query or of ``-L``."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    if _LISTED.match(first):
        return True
    cells = [_plain(cell) for cell in first.split(",")]
    heads = bool(set(cells) & _COLUMNS.keys()) or "driver_version" in cells
    without_head = any(
        _UUID.fullmatch(c.strip()) or bus_id(c) for c in first.split(",")
    )
    numbers = sum(bool(_MEMORY.fullmatch(c.strip())) for c in first.split(","))
    return heads or ("," in first and (without_head or numbers > 0))


def read_gpu_list(file: SourceText) -> NodeFacts:
    """The node of a query. Raises InvalidInstance with the line that is wrong."""
    rows = [(n, line) for n, line in file.lines() if line.strip()]
    if not rows:
        file.refuse("(file)", "an empty file", "one line per GPU")
    read = _listed if _LISTED.match(rows[0][1]) else _queried
    gpus = read(file, rows)
    if len(gpus) > MAX_GPUS_OF_NODE:
        found = f"{len(gpus)} GPUs"
        file.refuse("(file)", found, f"at most {MAX_GPUS_OF_NODE} on one node")
    return _facts(file, _in_order(file, gpus))


def _listed(file: SourceText, rows: Sequence[tuple[int, str]]) -> list[_Gpu]:
    gpus = []
    for line, text in rows:
        if match := _LISTED.match(text):
            values = {"index": match[1], "name": match[2], "uuid": match[3]}
            gpus.append(_Gpu(line, values))
        elif not text.startswith((" ", "\t")):  # lines of MIG devices are set in
            file.refuse(line, shown(text), "GPU N: NAME (UUID: GPU-...)")
    return gpus


def _queried(file: SourceText, rows: Sequence[tuple[int, str]]) -> list[_Gpu]:
    cells = [(n, [c.strip() for c in _cells(file, n, line)]) for n, line in rows]
    head = [_plain(cell) for cell in cells[0][1]]
    columns = [_COLUMNS.get(name) for name in head]
    if any(columns):
        cells = cells[1:]
        if not cells:
            file.refuse(rows[0][0], "a head without GPUs", "one line per GPU")
    else:
        columns = _guessed(file, cells)
    gpus = []
    for line, values in cells:
        if len(values) != len(columns):
            found = f"{len(values)} values"
            file.refuse(
                line, found, f"{len(columns)}, as many as line {rows[0][0]} has"
            )
        named = {c: v for c, v in zip(columns, values, strict=True) if c}
        if broken := next((v for v in values if _BROKEN.fullmatch(v)), ""):
            named["broken"] = broken.strip("[]")
        gpus.append(_Gpu(line, named))
    return gpus


def _cells(file: SourceText, line: int, text: str) -> list[str]:
    try:
        return next(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        file.refuse(line, f"broken CSV: {error}", "values between commas")


def _plain(cell: str) -> str:
    """A head without its unit: ``memory.total [MiB]`` is ``memory.total``."""
    return re.sub(r"\s*\[.*\]$", "", cell.strip().lower())


def _guessed(file: SourceText, cells: list[tuple[int, list[str]]]) -> list[str | None]:
    """Columns of a file without a head, by what stands in them."""
    line, first = cells[0]
    columns: list[str | None] = []
    for i in range(len(first)):
        values = [row[i] for _, row in cells if i < len(row)]
        columns.append(_guess(values))
    if "name" not in columns and "uuid" not in columns:
        known = ", ".join(_COLUMNS)
        hint = nearest(_plain(first[0]), _COLUMNS)
        file.refuse(line, shown(first[0]), f"{hint}a head with some of {known}")
    return [c if c not in columns[:i] else None for i, c in enumerate(columns)]


def _guess(values: list[str]) -> str | None:
    tests: tuple[tuple[str, Callable[[str], object]], ...] = (
        ("uuid", _UUID.fullmatch),
        ("bus", bus_id),
        ("index", lambda v: v.isascii() and v.isdigit() and int(v[:9]) < _SMALLEST_MIB),
        ("memory", _MEMORY.fullmatch),
        ("name", re.compile(r"(NVIDIA|Tesla|GeForce|GRID|Quadro) .*").fullmatch),
    )
    return next((c for c, test in tests if all(test(v) for v in values)), None)


def _in_order(file: SourceText, gpus: list[_Gpu]) -> list[_Gpu]:
    """By index; without one by PCI address, as nvidia-smi numbers them."""
    if all("index" in gpu.values for gpu in gpus):
        for gpu in gpus:
            if not re.fullmatch(r"\d{1,4}", gpu.values["index"]):
                found = shown(gpu.values["index"])
                file.refuse(gpu.line, f"index {found}", "the number of the GPU")
        gpus = sorted(gpus, key=lambda gpu: int(gpu.values["index"]))
        for i, gpu in enumerate(gpus):
            if int(gpu.values["index"]) != i:
                allowed = f"GPU {i}: all GPUs of the node, each once"
                file.refuse(gpu.line, f"index {gpu.values['index']}", allowed)
        return gpus
    buses = [bus_id(gpu.values.get("bus", "")) for gpu in gpus]
    if all(buses):
        order = sorted(range(len(gpus)), key=lambda i: buses[i] or "")
        return [gpus[i] for i in order]
    return gpus


def _facts(file: SourceText, gpus: list[_Gpu]) -> NodeFacts:
    names = [gpu.values.get("name", "") for gpu in gpus]
    healthy = {name for name in names if name and not _BROKEN.fullmatch(name)}
    if len(healthy) == 1:
        # a GPU that fell off the bus keeps the name of its neighbours
        names = [*healthy] * len(gpus)
    buses = [_bus(file, gpu) for gpu in gpus]
    uuids = [gpu.values.get("uuid", "") for gpu in gpus]
    _differ(file, gpus, uuids)
    _differ(file, gpus, buses)
    memory = [_memory(file, gpu) for gpu in gpus]
    known = [value for value in memory if value]
    return NodeFacts(
        name=file.node,
        source=file.source,
        kind=Kind.GPU_LIST,
        gpus=len(gpus),
        products=tuple(names) if all(names) else None,
        memory_mib=tuple(v or min(known) for v in memory) if known else None,
        uuids=tuple(uuids) if all(_UUID.fullmatch(u) for u in uuids) else None,
        bus_ids=tuple(buses) if all(buses) else None,
        failed={
            i: f"nvidia-smi prints {gpu.values['broken']!r}"
            for i, gpu in enumerate(gpus)
            if "broken" in gpu.values
        },
    )


def _bus(file: SourceText, gpu: _Gpu) -> str:
    text = gpu.values.get("bus", "")
    if not text or text.startswith("["):
        return ""
    bus = bus_id(text)
    if bus is None:
        file.refuse(gpu.line, shown(text), "a PCI address such as 00000000:1B:00.0")
    return bus


def _memory(file: SourceText, gpu: _Gpu) -> int | None:
    text = gpu.values.get("memory", "")
    if not text or text.startswith("["):
        return None
    match = _MEMORY.fullmatch(text)
    if match is None or not int(match[1]):
        file.refuse(gpu.line, f"memory {shown(text)}", "MiB, as 81559 or 81559 MiB")
    return int(match[1])


def _differ(file: SourceText, gpus: list[_Gpu], values: list[str]) -> None:
    seen: dict[str, int] = {}
    for gpu, value in zip(gpus, values, strict=True):
        if value and not value.startswith("[") and value in seen:
            allowed = f"each GPU once; line {seen[value]} has it"
            file.refuse(gpu.line, shown(value), allowed)
        seen[value] = gpu.line
