"""Slurm's topology.yaml: a list of topologies, each a tree, blocks or flat."""

from __future__ import annotations

import re
from typing import Any

from shardwright.ingest.importers.facts import FabricFacts, FileFacts, Kind
from shardwright.ingest.importers.slurm import host_names
from shardwright.ingest.importers.text import SourceText
from shardwright.ingest.refuse import shown
from shardwright.ingest.yaml_text import read_yaml
from shardwright.schema.topology import Rack, Switch


def is_slurm_yaml(text: str) -> bool:
    """Whether the text is a list that starts with a topology."""
    return bool(re.search(r"^-\s+topology\s*:", text, re.MULTILINE))


def read_slurm_yaml(file: SourceText) -> FileFacts:
    """The network: the first tree and the first blocks, the default's own before.

    Raises InvalidInstance with line or path.
    """
    raw = read_yaml(file.text, file.source)
    if not isinstance(raw, list):
        file.refuse("(document)", shown(raw), "a list of topologies")
    listed = [_mapping(file, str(i), entry) for i, entry in enumerate(raw)]
    order = sorted(
        range(len(listed)), key=lambda i: not listed[i].get("cluster_default")
    )
    switches: list[Switch] = []
    racks: list[Rack] = []
    warnings = []
    for i in order:
        entry = listed[i]
        name = shown(entry.get("topology"))
        if "tree" in entry and not switches:
            switches = _tree(file, f"{i}.tree", entry["tree"])
        elif "block" in entry and not racks:
            racks = _blocks(file, f"{i}.block", entry["block"])
        elif "flat" not in entry:
            warnings.append(f"{file.source}: topology {name} is not used: only the "
                            "first tree and the first blocks are")  # fmt: skip
    fabric = FabricFacts(file.source, Kind.SLURM, 0, tuple(switches), tuple(racks))
    return FileFacts((), fabric if switches or racks else None, tuple(warnings))


def _tree(file: SourceText, at: str, raw: Any) -> list[Switch]:
    found: dict[str, tuple[str, str | None, str | None]] = {}
    for path, entry in _entries(file, at, raw, "switches"):
        name = _text(file, f"{path}.switch", entry.get("switch"))
        if name in found:
            file.refuse(
                f"{path}.switch", shown(name), f"another; {found[name][0]} has it"
            )
        nodes = _hosts(file, f"{path}.nodes", entry.get("nodes"))
        below = _hosts(file, f"{path}.children", entry.get("children"))
        if nodes and below:
            file.refuse(path, "both nodes and children", "either of them")
        found[name] = (path, nodes, below)
    switches = []
    for name, (path, nodes, below) in found.items():
        children = host_names(file, f"{path}.children", below) if below else ()
        for child in children:
            if child not in found:
                allowed = "a switch of this topology"
                file.refuse(f"{path}.children", shown(child), allowed)
        if nodes or below:
            hosts = host_names(file, f"{path}.nodes", nodes) if nodes else None
            switches.append(Switch(name=name, nodes=hosts, switches=children or None))
    # a leaf that is filled at run time has no nodes yet
    kept = {switch.name for switch in switches}
    return [
        s.model_copy(update={"switches": _only(s.switches, kept)}) for s in switches
    ]


def _only(names: tuple[str, ...] | None, kept: set[str]) -> tuple[str, ...] | None:
    return None if names is None else tuple(name for name in names if name in kept)


def _blocks(file: SourceText, at: str, raw: Any) -> list[Rack]:
    racks: list[Rack] = []
    for path, entry in _entries(file, at, raw, "blocks"):
        name = _text(file, f"{path}.block", entry.get("block"))
        if name in [rack.name for rack in racks]:
            file.refuse(f"{path}.block", shown(name), "each block once")
        if nodes := _hosts(file, f"{path}.nodes", entry.get("nodes")):
            racks.append(
                Rack(name=name, nodes=host_names(file, f"{path}.nodes", nodes))
            )
    return racks


def _entries(
    file: SourceText, at: str, raw: Any, name: str
) -> list[tuple[str, dict[str, Any]]]:
    entries = _mapping(file, at, raw).get(name)
    if not isinstance(entries, list):
        file.refuse(f"{at}.{name}", shown(entries), "a list")
    paths = [f"{at}.{name}.{i}" for i in range(len(entries))]
    return [(p, _mapping(file, p, e)) for p, e in zip(paths, entries, strict=True)]


def _mapping(file: SourceText, at: str, raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        file.refuse(at, shown(raw), "a mapping")
    return raw


def _text(file: SourceText, at: str, raw: Any) -> str:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return str(raw)
    if not isinstance(raw, str) or not raw:
        file.refuse(at, shown(raw), "a name")
    return raw


def _hosts(file: SourceText, at: str, raw: Any) -> str | None:
    return None if raw is None else _text(file, at, raw)
