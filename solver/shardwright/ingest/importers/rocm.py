"""``rocm-smi --showtopo``: weights, hops and link types between AMD GPUs."""

from __future__ import annotations

import re

from shardwright.ingest.importers.facts import Group, Kind, Link, NodeFacts, PcieFacts
from shardwright.ingest.importers.text import SourceText
from shardwright.ingest.refuse import shown

_TITLE = re.compile(r"=+ (.+?) =+")
_TYPES = "Link Type between two GPUs"
_HOPS = "Hops between two GPUs"
_NUMA = re.compile(r"GPU ?\[?(\d{1,4})\]?\s*: \(Topology\) Numa Node: (-?\d{1,4})")
MAX_GPUS_OF_NODE = 256


def is_rocm(text: str) -> bool:
    """Whether ROCm's interface printed this."""
    return "ROCm System Management Interface" in text or _TYPES in text


def read_rocm(file: SourceText) -> NodeFacts:
    """The node of an output. Raises InvalidInstance with the line that is wrong.

    XGMI at one hop is a link of its own. Its number of lanes is not printed.
    """
    types = _matrix(file, _TYPES)
    if types is None:
        allowed = f"the table '{_TYPES}' (rocm-smi --showtopo)"
        file.refuse("(file)", "no table of link types", allowed)
    hops = _matrix(file, _HOPS)
    gpus = len(types[1])
    if hops is not None and len(hops[1]) != gpus:
        found = f"{len(hops[1])} GPUs in the table of hops"
        file.refuse(hops[0], found, f"{gpus}, as in the table of link types")
    links = []
    for a in range(gpus):
        for b in range(a):
            kind = _kind(file, types, a, b)
            near = hops is None or _cell(hops, a, b) == "1"
            if kind == "XGMI" and near:
                links.append(Link(b, a, "xGMI"))
    return NodeFacts(
        name=file.node,
        source=file.source,
        kind=Kind.ROCM,
        gpus=gpus,
        links=tuple(sorted(links, key=lambda x: (x.a, x.b))),
        pcie=PcieFacts(numa=_numa(file, gpus)),
    )


Matrix = tuple[int, dict[int, tuple[int, list[str]]]]
"""Line of the title; line and cells of every row by GPU."""


def _matrix(file: SourceText, title: str) -> Matrix | None:
    """The table under a title; the row of a GPU ends with the cell of the last."""
    at, head, rows = 0, list[int](), dict[int, tuple[int, list[str]]]()
    for number, line in file.lines():
        if match := _TITLE.search(line):
            if at and head:
                break
            at = number if match[1] == title else 0
        elif at and line.strip():
            words = line.split()
            if not head:
                head = _head(file, number, words)
            else:
                _row(file, number, words, head, rows)
    if not at and not rows:
        return None
    if missing := [g for g in head if g not in rows]:
        found = f"no row of GPU{missing[0]} in '{title}'"
        file.refuse(at or "(file)", found, "one row per GPU")
    return at, rows


def _head(file: SourceText, number: int, words: list[str]) -> list[int]:
    if words != [f"GPU{i}" for i in range(len(words))]:
        file.refuse(number, shown(" ".join(words)), "GPU0 GPU1 ..., the whole node")
    if len(words) > MAX_GPUS_OF_NODE:
        file.refuse(number, f"{len(words)} GPUs", f"at most {MAX_GPUS_OF_NODE}")
    return [*range(len(words))]


def _row(
    file: SourceText,
    number: int,
    words: list[str],
    head: list[int],
    rows: dict[int, tuple[int, list[str]]],
) -> None:
    name = re.fullmatch(r"GPU(\d{1,4})", words[0])
    if name is None or int(name[1]) not in head or int(name[1]) in rows:
        file.refuse(number, shown(words[0]), "one row for each GPU of the head")
    if len(words) != len(head) + 1:
        found = f"{len(words) - 1} cells for {words[0]}"
        file.refuse(number, found, f"one for each of the {len(head)} GPUs")
    rows[int(name[1])] = (number, words[1:])


def _cell(matrix: Matrix, a: int, b: int) -> str:
    return matrix[1][a][1][b]


def _kind(file: SourceText, types: Matrix, a: int, b: int) -> str:
    here, there = _cell(types, a, b), _cell(types, b, a)
    line, other = types[1][a][0], types[1][b][0]
    if here not in ("XGMI", "PCIE"):
        file.refuse(line, f"{shown(here)} for GPU{a} and GPU{b}", "XGMI or PCIE")
    if here != there:
        allowed = f"{there}, as line {other} has it for GPU{b} and GPU{a}"
        file.refuse(line, f"{here} for GPU{a} and GPU{b}", allowed)
    return here


def _numa(file: SourceText, gpus: int) -> dict[Group, int | None]:
    numbers: dict[int, int] = {}
    for _, line in file.lines():
        match = _NUMA.search(line)
        if match and int(match[1]) < gpus and int(match[2]) >= 0:
            numbers[int(match[1])] = int(match[2])
    if len(numbers) < gpus:
        return {}
    return {
        tuple(g for g in range(gpus) if numbers[g] == number): number
        for number in sorted(set(numbers.values()))
    }
