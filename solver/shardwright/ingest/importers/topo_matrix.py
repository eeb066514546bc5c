"""``nvidia-smi topo -m``: the matrix of how GPUs and NICs of one node are connected."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shardwright.ingest.importers.facts import Kind, Link, NodeFacts
from shardwright.ingest.importers.nearness import NAMES, Device, Nearness
from shardwright.ingest.importers.text import SourceText
from shardwright.ingest.refuse import shown

_GPU = re.compile(r"GPU(\d{1,4})")
_NVLINK = re.compile(r"NV(\d{1,3})")
_MATRIX = re.compile(
    r"^\s*GPU\d+\s+(GPU\d+|NIC\d+|mlx\d|CPU\s+Affinity|X|NV\d+|PIX|PXB|PHB|NODE|SYS|SOC)\b",
    re.MULTILINE,
)
_LEGEND = re.compile(r"\s*(NIC\d+):\s*(\S+)$")
_TAILS = ("CPU Affinity", "NUMA Affinity", "GPU NUMA ID")
_CELLS = "X, NV#, PIX, PXB, PHB, NODE, SYS or SOC"
MAX_DEVICES = 512


@dataclass(frozen=True)
class _Row:
    line: int
    cells: tuple[str, ...]
    tail: tuple[str, ...]


def is_topo(text: str) -> bool:
    """Whether some line looks like the head of the matrix, or a row of it."""
    return bool(_MATRIX.search(text))


def read_topo(file: SourceText) -> NodeFacts:
    """The node of a matrix. Raises InvalidInstance with the line that is wrong."""
    head, devices, tails = _head(file)
    rows = _rows(file, head, devices)
    _tails(file, rows, tails)
    _symmetric(file, devices, rows)
    gpus = [d for d in devices if _GPU.fullmatch(d)]
    names: dict[str, Device] = {d: int(d[3:]) for d in gpus}
    legend = _nic_names(file)
    names |= {d: legend.get(d, d) for d in devices if d not in names}
    links, level = _pairs(devices, rows, names)
    numa = _numa(file, gpus, rows, tails)
    facts, warnings = Nearness(tuple(names.values()), level, numa).pcie()
    return NodeFacts(
        name=file.node,
        source=file.source,
        kind=Kind.TOPO,
        gpus=len(gpus),
        links=tuple(links),
        pcie=facts,
        warnings=tuple(warnings),
    )


def _head(file: SourceText) -> tuple[int, list[str], list[str]]:
    for number, line in file.lines():
        words = line.split()
        if not words or not _GPU.fullmatch(words[0]):
            continue
        if len(words) > 1 and (
            words[1] == "X" or words[1] in NAMES or words[1][:2] == "NV"
        ):
            allowed = "the line GPU0 GPU1 ... above it"
            file.refuse(number, "a row without a head", allowed)
        devices, tails = _columns(line)
        gpus = sorted(int(d[3:]) for d in devices if _GPU.fullmatch(d))
        if len(set(devices)) != len(devices):
            file.refuse(number, "a device twice in the head", "each device once")
        if gpus != list(range(len(gpus))):
            found = f"GPUs {', '.join(map(str, gpus))} in the head"
            file.refuse(number, found, f"GPU0 to GPU{len(gpus) - 1}, the whole node")
        if len(devices) > MAX_DEVICES:
            file.refuse(number, f"{len(devices)} devices", f"at most {MAX_DEVICES}")
        return number, devices, tails
    return file.refuse("(file)", "no head of a matrix", "a line GPU0 GPU1 ...")


def _columns(line: str) -> tuple[list[str], list[str]]:
    """Devices of the head, and which of the three tails it has."""
    tails = [tail for tail in _TAILS if re.search(tail.replace(" ", r"\s+"), line)]
    starts = [re.search(tail.replace(" ", r"\s+"), line) for tail in tails]
    end = min((match.start() for match in starts if match), default=len(line))
    return line[:end].split(), tails


def _rows(file: SourceText, head: int, devices: list[str]) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    last = head
    for number, line in file.lines():
        words = line.split()
        if number <= head or not words or len(rows) == len(devices):
            if number > head and words and words[0] == devices[0] and len(rows):
                file.refuse(number, "a second matrix", "one node per file")
            continue
        name = words[0]
        if name not in devices:
            if _GPU.fullmatch(name):
                file.refuse(number, f"a row of {name}", "the head has no such device")
            break
        if name in rows:
            allowed = f"each device once; line {rows[name].line} has it"
            file.refuse(number, f"a row of {name}", allowed)
        rows[name] = _row(file, number, words, devices)
        last = number
    if missing := [d for d in devices if d not in rows]:
        found = f"no row of {' and '.join(missing[:4])} below it"
        file.refuse(last, found, f"one row for each of the {len(devices)} devices")
    return rows


def _row(file: SourceText, number: int, words: list[str], devices: list[str]) -> _Row:
    name, cells = words[0], words[1 : len(devices) + 1]
    for device, cell in zip(devices, cells, strict=False):
        known = cell == "X" or cell in NAMES or _NVLINK.fullmatch(cell)
        if not known or cell == "NV0":
            file.refuse(number, f"{shown(cell)} for {name} and {device}", _CELLS)
        if (cell == "X") != (name == device):
            allowed = "X where a device meets itself and nowhere else"
            file.refuse(number, f"{cell} for {name} and {device}", allowed)
        if _NVLINK.fullmatch(cell) and not (_is_gpu(name) and _is_gpu(device)):
            allowed = "NV# joins GPUs"
            file.refuse(number, f"{cell} for {name} and {device}", allowed)
    if len(cells) < len(devices):
        found = f"{len(cells)} cells for {name}"
        file.refuse(number, found, f"one for each of the {len(devices)} devices")
    return _Row(number, tuple(cells), tuple(words[len(devices) + 1 :]))


def _tails(file: SourceText, rows: dict[str, _Row], tails: list[str]) -> None:
    for name, row in rows.items():
        if len(row.tail) > (len(tails) if _is_gpu(name) else 0):
            found = f"{shown(' '.join(row.tail))} after the cells of {name}"
            allowed = f"at most {', '.join(tails) or 'nothing'}"
            file.refuse(row.line, found, allowed if _is_gpu(name) else "nothing")


def _is_gpu(name: str) -> bool:
    return bool(_GPU.fullmatch(name))


def _symmetric(file: SourceText, devices: list[str], rows: dict[str, _Row]) -> None:
    for i, a in enumerate(devices):
        for j, b in enumerate(devices[:i]):
            here, there = rows[a].cells[j], rows[b].cells[i]
            if here != there and NAMES.get(here, here) != NAMES.get(there, there):
                allowed = f"{there}, as line {rows[b].line} has it for {b} and {a}"
                file.refuse(rows[a].line, f"{here} for {a} and {b}", allowed)


def _nic_names(file: SourceText) -> dict[str, str]:
    found = (_LEGEND.match(line) for _, line in file.lines())
    return {match[1]: match[2] for match in found if match}


def _pairs(
    devices: list[str], rows: dict[str, _Row], names: dict[str, Device]
) -> tuple[list[Link], dict[tuple[Device, Device], int]]:
    links, level = [], {}
    for i, a in enumerate(devices):
        for j, b in enumerate(devices[:i]):
            cell, one, two = rows[a].cells[j], names[a], names[b]
            nvlink = _NVLINK.fullmatch(cell)
            if nvlink and isinstance(one, int) and isinstance(two, int):
                low, high = sorted((one, two))
                links.append(Link(low, high, "NVLink", int(nvlink[1])))
            else:
                level[one, two] = NAMES[cell]
    return sorted(links, key=lambda link: (link.a, link.b)), level


def _numa(
    file: SourceText, gpus: list[str], rows: dict[str, _Row], tails: list[str]
) -> dict[int, int]:
    """NUMA nodes of the GPUs that have exactly one; N/A, nothing and 0-1 have none."""
    if "NUMA Affinity" not in tails:
        return {}
    at = tails.index("NUMA Affinity")
    numa = {}
    for gpu in gpus:
        row = rows[gpu]
        text = row.tail[at] if at < len(row.tail) else "N/A"
        if re.fullmatch(r"\d{1,4}", text):
            numa[int(gpu[3:])] = int(text)
        elif text != "N/A" and not re.fullmatch(r"[\d,-]{1,200}", text):
            file.refuse(row.line, f"{shown(text)} as NUMA affinity of {gpu}",
                        "a number, a range or N/A")  # fmt: skip
    return numa
