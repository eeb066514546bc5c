"""Slurm: topology.conf, the node and GRES lines of slurm.conf and gres.conf, and
``scontrol show node``; topology.yaml is read beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from shardwright.ingest.importers.facts import FabricFacts, FileFacts, Kind, NodeFacts
from shardwright.ingest.importers.hostlist import expand
from shardwright.ingest.importers.text import SourceText
from shardwright.ingest.refuse import shown
from shardwright.schema.topology import Rack, Switch

_RECORDS = ("switchname", "blockname", "blocksizes", "nodename", "name")
_START = re.compile(rf"\s*({'|'.join(_RECORDS)})\s*=", re.IGNORECASE)
_GRES = re.compile(r"gpu(?::([^:()=]+?))?(?::(\d{1,4}))?(?:\(.*\))?")
_WITHHELD = {
    "DRAIN": "reserved",
    "DRAINED": "reserved",
    "DRAINING": "reserved",
    "MAINT": "reserved",
    "RESERVED": "reserved",
    "FUTURE": "reserved",
    "DOWN": "failed",
    "FAIL": "failed",
    "FAILING": "failed",
    "NOT_RESPONDING": "failed",
}
MAX_GPUS_OF_NODE = 1024


@dataclass(frozen=True)
class _Record:
    line: int
    values: dict[str, str]

    def get(self, name: str) -> str:
        return self.values.get(name, "")


def is_slurm(text: str) -> bool:
    """Whether a line starts as records of topology.conf or slurm.conf do."""
    start = r"^\s*(SwitchName|BlockName|NodeName)\s*=|^\s*Name\s*=\s*gpu\b"
    return bool(re.search(start, text, re.IGNORECASE | re.MULTILINE))


def read_slurm(file: SourceText) -> FileFacts:
    """Nodes and network of a file. Raises InvalidInstance with the line."""
    records = list(_records(file))
    gres, warnings = _gres_lines(file, records)
    nodes = [*_nodes(file, records), *gres]
    fabric = _fabric(file, records)
    return FileFacts(tuple(nodes), fabric, tuple(warnings))


def _records(file: SourceText) -> Iterator[_Record]:
    """Lines joined at a backslash; set-in lines of scontrol are of the node above."""
    open_: _Record | None = None
    joined, begun = "", 0
    for number, raw in file.lines():
        line = re.sub(r"(^|\s)#.*", "", raw)
        joined, begun = joined + line, begun or number
        if joined.endswith("\\"):
            joined = joined[:-1] + " "
            continue
        line, number, joined, begun = joined, begun, "", 0
        if _START.match(line):
            if open_:
                yield open_
            open_ = _Record(number, dict(_words(file, number, line)))
        elif open_ and line[:1] in (" ", "\t"):
            for key, value in _words(file, number, line):
                open_.values.setdefault(key, value)
        elif line.strip():
            if open_:
                yield open_
            open_ = None
    if open_:
        yield open_


def _words(file: SourceText, number: int, line: str) -> Iterator[tuple[str, str]]:
    if reason := re.search(r"\bReason=(.*)$", line):
        yield "reason", reason[1].strip().strip('"')
        line = line[: reason.start()]
    seen: set[str] = set()
    for match in re.finditer(r'(\w+)\s*=\s*("[^"]*"|\S+)', line):
        key = match[1].lower()
        if key in seen and key in _RECORDS:
            file.refuse(number, f"{match[1]} twice", "one record per line")
        if key not in seen:
            yield key, match[2].strip('"')
        seen.add(key)


def host_names(file: SourceText, at: int | str, text: str) -> tuple[str, ...]:
    """The names of a host list, refused at ``at``."""
    try:
        return tuple(expand(text))
    except ValueError as error:
        file.refuse(at, str(error), "a host list such as node[01-04,07]")


def _fabric(file: SourceText, records: list[_Record]) -> FabricFacts | None:
    switches, racks = [], []
    lines: dict[str, int] = {}
    for record in records:
        for key, kind in (("switchname", "switch"), ("blockname", "block")):
            if not (name := record.get(key)):
                continue
            if name in lines:
                allowed = f"another name; line {lines[name]} has it"
                file.refuse(record.line, f"{kind} {name}", allowed)
            lines[name] = record.line
            nodes, below = record.get("nodes"), record.get("switches")
            if kind == "block":
                if not nodes:
                    file.refuse(record.line, f"block {name} without Nodes", "Nodes=...")
                racks.append(
                    Rack(name=name, nodes=host_names(file, record.line, nodes))
                )
            elif bool(nodes) == bool(below):
                found = f"switch {name} with {'both' if nodes else 'neither'}"
                file.refuse(record.line, found, "either Nodes=... or Switches=...")
            else:
                switches.append(
                    Switch(
                        name=name,
                        nodes=host_names(file, record.line, nodes) if nodes else None,
                        switches=host_names(file, record.line, below)
                        if below
                        else None,
                    )
                )
    known = {switch.name for switch in switches}
    for switch in switches:
        for name in switch.switches or ():
            if name not in known:
                found = f"switch {name} below {switch.name}"
                file.refuse(lines[switch.name], found, "a switch of this file")
    if not switches and not racks:
        return None
    return FabricFacts(file.source, Kind.SLURM, 1, tuple(switches), tuple(racks))


def _nodes(file: SourceText, records: list[_Record]) -> Iterator[NodeFacts]:
    seen: dict[str, int] = {}
    # a node without GRES has no GPUs, unless the file is silent about GPUs altogether
    none = 0 if any(record.get("gres") for record in records) else None
    for record in records:
        names = record.get("nodename")
        if not names or names.upper() == "DEFAULT" or record.get("name"):
            continue
        products = _gres(file, record)
        withheld, reason = _state(record)
        for name in host_names(file, record.line, names):
            if name in seen:
                allowed = f"each node once; line {seen[name]} has it"
                file.refuse(record.line, f"node {name}", allowed)
            seen[name] = record.line
            yield _node(
                file,
                name,
                products,
                none,
                reserved={-1: reason} if withheld == "reserved" else {},
                failed={-1: reason} if withheld == "failed" else {},
            )


def _node(
    file: SourceText,
    name: str,
    products: list[str],
    none: int | None,
    reserved: dict[int, str],
    failed: dict[int, str],
) -> NodeFacts:
    return NodeFacts(
        name=name,
        source=file.source,
        kind=Kind.SLURM,
        gpus=len(products) or none,
        products=tuple(products) if products and all(products) else None,
        reserved=reserved,
        failed=failed,
    )


def _gres(file: SourceText, record: _Record) -> list[str]:
    """The type of every GPU of Gres=gpu:TYPE:COUNT, '' where it has none."""
    products: list[str] = []
    for part in re.split(r",(?![^(]*\))", record.get("gres")):
        if not part.startswith("gpu"):
            continue
        match = _GRES.fullmatch(part)
        if match is None:
            file.refuse(
                record.line, f"Gres={shown(part)}", "gpu:TYPE:COUNT or gpu:COUNT"
            )
        kind, count = match[1] or "", match[2]
        if kind.isdigit() and count is None:
            kind, count = "", kind
        products += [kind] * int(count or 1)
    if len(products) > MAX_GPUS_OF_NODE:
        found = f"{len(products)} GPUs"
        file.refuse(record.line, found, f"at most {MAX_GPUS_OF_NODE} on one node")
    return products


def _gres_lines(
    file: SourceText, records: list[_Record]
) -> tuple[list[NodeFacts], list[str]]:
    """Lines of gres.conf: Name=gpu, by node; several lines of a node add up."""
    types: dict[str, list[str]] = {}
    warnings = []
    for record in records:
        if record.get("name").lower() != "gpu":
            continue
        if not (names := record.get("nodename")):
            warnings.append(
                f"{file.source} line {record.line}: a GRES line without NodeName is "
                "not used; slurm.conf has the counts"
            )
            continue
        count = _count(file, record)
        for name in host_names(file, record.line, names):
            mine = types.setdefault(name, [])
            mine += [record.get("type")] * count
            if len(mine) > MAX_GPUS_OF_NODE:
                found = f"{len(mine)} GPUs of {name}"
                file.refuse(record.line, found, f"at most {MAX_GPUS_OF_NODE}")
    return [
        _node(file, n, products, None, {}, {}) for n, products in types.items()
    ], warnings


def _count(file: SourceText, record: _Record) -> int:
    text, files = record.get("count"), record.get("file")
    if re.fullmatch(r"[1-9]\d{0,3}", text):
        return int(text)
    if text or not files:
        found = f"Count={text}" if text else "neither Count nor File"
        file.refuse(record.line, found, "Count=8 or File=/dev/nvidia[0-7]")
    return len(host_names(file, record.line, files))


def _state(record: _Record) -> tuple[str, str]:
    """Whether and why a node is out of use; a node that runs jobs is not."""
    states = re.split(r"[+*~#!%$@^-]+", record.get("state").upper())
    for state in states:
        if state in _WITHHELD:
            reason = record.get("reason")
            words = f"Slurm state {record.get('state')}"
            return _WITHHELD[state], f"{words}: {reason}" if reason else words
    return "", ""
