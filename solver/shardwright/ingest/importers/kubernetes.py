"""``kubectl get nodes -o json``: GPUs, where nodes stand, and what is withheld."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardwright.ingest.importers.facts import (
    FabricFacts,
    FileFacts,
    Kind,
    NodeFacts,
    natural,
)
from shardwright.ingest.importers.text import SourceText
from shardwright.ingest.json_text import read_json
from shardwright.ingest.refuse import shown
from shardwright.schema.topology import Rack, Switch

_VENDORS = ("nvidia.com", "amd.com")
_PRODUCT = (
    "nvidia.com/gpu.product",
    "amd.com/gpu.product-name",
    "beta.amd.com/gpu.product-name",
    "cloud.google.com/gke-accelerator",
)
_CLIQUE = "nvidia.com/gpu.clique"
_TREE = (
    "topology.kubernetes.io/zone",
    "topology.k8s.aws/network-node-layer-1",
    "topology.k8s.aws/network-node-layer-2",
    "topology.k8s.aws/network-node-layer-3",
    "cloud.google.com/gce-topology-block",
    "cloud.google.com/gce-topology-subblock",
)
"""Labels that say where a node hangs in the network, from the widest to the nearest."""
_RACK = re.compile(r"(^|[/.-])rack(-?(id|name))?$")
_TOLERATED = ("nvidia.com/gpu", "amd.com/gpu")
"""Taints that only keep other work off the GPUs."""
_READY = "Ready"
MAX_GPUS_OF_NODE = 1024
MAX_NODES = 100_000


def is_json(text: str) -> bool:
    """Whether the text is a JSON document."""
    return text.lstrip("\ufeff \t\r\n").startswith(("{", "["))


@dataclass(frozen=True)
class _Node:
    at: str
    name: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    status: Mapping[str, Any]


def read_kubernetes(file: SourceText) -> FileFacts:
    """Nodes with GPUs and where they stand. Raises InvalidInstance with the path."""
    nodes = _items(file, read_json(file.text, file.source))
    gpus = {node.name: _gpus(file, node) for node in nodes}
    with_gpus = [node for node in nodes if gpus[node.name]]
    if not with_gpus:
        found = f"{len(nodes)} nodes, none with GPUs"
        allowed = "nodes with nvidia.com/gpu or amd.com/gpu in status.capacity"
        file.refuse("items", found, allowed)
    facts = [_facts(file, node, gpus[node.name]) for node in with_gpus]
    return FileFacts(tuple(facts), _fabric(file, with_gpus), _warnings(file, with_gpus))


def _items(file: SourceText, raw: Any) -> list[_Node]:
    if isinstance(raw, dict) and raw.get("kind") == "Node":
        raw = {"items": [raw]}
    if not isinstance(raw, dict) or not isinstance(raw.get("items"), list):
        found = shown(raw)
        file.refuse(
            "(document)", found, "the list that kubectl get nodes -o json prints"
        )
    if len(raw["items"]) > MAX_NODES:
        file.refuse("items", f"{len(raw['items'])} nodes", f"at most {MAX_NODES}")
    nodes: list[_Node] = []
    seen: dict[str, str] = {}
    for i, item in enumerate(raw["items"]):
        at = f"items.{i}"
        item = _mapping(file, at, item)
        if item.get("kind", "Node") != "Node":
            file.refuse(f"{at}.kind", shown(item.get("kind")), "Node")
        meta = _mapping(file, f"{at}.metadata", item.get("metadata"))
        name = meta.get("name")
        if not isinstance(name, str) or not name:
            file.refuse(f"{at}.metadata.name", shown(name), "the name of the node")
        if name in seen:
            allowed = f"each node once; {seen[name]} has it"
            file.refuse(f"{at}.metadata.name", shown(name), allowed)
        seen[name] = at
        labels = _mapping(file, f"{at}.metadata.labels", meta.get("labels") or {})
        nodes.append(
            _Node(
                at,
                name,
                {k: str(v) for k, v in labels.items()},
                _mapping(file, f"{at}.spec", item.get("spec") or {}),
                _mapping(file, f"{at}.status", item.get("status") or {}),
            )
        )
    return nodes


def _mapping(file: SourceText, at: str, raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        file.refuse(at, shown(raw), "a mapping")
    return raw


def _gpus(file: SourceText, node: _Node) -> int:
    """Physical GPUs: the label where there is one, else the capacity."""
    label = node.labels.get("nvidia.com/gpu.count")
    if label is not None:
        at = f"{node.at}.metadata.labels.nvidia.com/gpu.count"
        return _number(file, at, label)
    return sum(_resource(file, node, "capacity", vendor) for vendor in _VENDORS)


def _resource(file: SourceText, node: _Node, table: str, vendor: str) -> int:
    at = f"{node.at}.status.{table}"
    values = _mapping(file, at, node.status.get(table) or {})
    value = values.get(f"{vendor}/gpu", "0")
    return _number(file, f"{at}.{vendor}/gpu", value)


def _number(file: SourceText, at: str, value: Any) -> int:
    text = str(value)
    if not re.fullmatch(r"\d{1,6}", text) or int(text) > MAX_GPUS_OF_NODE:
        file.refuse(at, shown(value), f"a number of GPUs, at most {MAX_GPUS_OF_NODE}")
    return int(text)


def _facts(file: SourceText, node: _Node, gpus: int) -> NodeFacts:
    product = next((node.labels[key] for key in _PRODUCT if key in node.labels), "")
    shared = product.endswith("-SHARED")
    product = product.removesuffix("-SHARED")
    memory = node.labels.get("nvidia.com/gpu.memory", "")
    reserved, failed = _withheld(node)
    usable = sum(_resource(file, node, "allocatable", vendor) for vendor in _VENDORS)
    warnings = []
    if shared:
        warnings.append("GPUs are time-sliced; whole GPUs are planned")
    elif (
        not reserved
        and not failed
        and 0 <= usable < gpus
        and node.status.get("allocatable")
    ):
        # Kubernetes does not say which: the last ones stand for them
        failed = dict.fromkeys(
            range(usable, gpus),
            f"only {usable} of {gpus} GPUs are allocatable; which is not printed",
        )
        warnings.append(
            f"{gpus - usable} of {gpus} GPUs are not allocatable; which ones is not "
            "printed: the last are marked failed"
        )
    return NodeFacts(
        name=node.name,
        source=file.source,
        kind=Kind.KUBERNETES,
        gpus=gpus,
        products=(product,) * gpus if product else None,
        memory_mib=(int(memory),) * gpus
        if re.fullmatch(r"[1-9]\d{2,7}", memory)
        else None,
        reserved=reserved,
        failed=failed,
        warnings=tuple(warnings),
    )


def _withheld(node: _Node) -> tuple[dict[int, str], dict[int, str]]:
    """Why a node is reserved (cordoned, tainted) or failed (not ready)."""
    conditions = node.status.get("conditions")
    for condition in conditions if isinstance(conditions, list) else ():
        ready = isinstance(condition, dict) and condition.get("type") == _READY
        if ready and condition.get("status") != "True":
            reason = condition.get("reason") or "no reason given"
            return {}, {-1: f"not ready: {reason}"}
    if node.spec.get("unschedulable") is True:
        return {-1: "unschedulable (cordoned)"}, {}
    taints = node.spec.get("taints")
    for taint in taints if isinstance(taints, list) else ():
        if not isinstance(taint, dict) or taint.get("key") in _TOLERATED:
            continue
        if taint.get("effect") in ("NoSchedule", "NoExecute"):
            value = f"={taint['value']}" if taint.get("value") else ""
            return {-1: f"taint {taint.get('key')}{value}:{taint['effect']}"}, {}
    return {}, {}


def _fabric(file: SourceText, nodes: list[_Node]) -> FabricFacts | None:
    switches, racks = _tree(nodes), _racks(nodes)
    if not switches and not racks:
        return None
    return FabricFacts(file.source, Kind.KUBERNETES, 2, switches, racks)


def _tree(nodes: list[_Node]) -> tuple[Switch, ...]:
    """A switch for every group of labels; one that separates nothing is left out."""
    paths = {node.name: _path(node) for node in nodes}
    if len(set(paths.values())) < 2 or not all(paths.values()):
        return ()
    below: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for path in paths.values():
        for depth in range(1, len(path)):
            below.setdefault(path[:depth], set()).add(path[: depth + 1])
    switches = []
    for path in sorted(set(paths.values()) - below.keys(), key=_path_key):
        names = sorted((n for n, p in paths.items() if p == path), key=natural)
        switches.append(Switch(name="/".join(path), nodes=tuple(names)))
    if any(path in below for path in paths.values()):
        # some nodes have fewer labels than others: there is no one tree
        return ()
    for path in sorted(below, key=lambda p: (-len(p), _path_key(p))):
        names = ["/".join(p) for p in sorted(below[path], key=_path_key)]
        switches.append(Switch(name="/".join(path), switches=tuple(names)))
    return tuple(switches)


def _path(node: _Node) -> tuple[str, ...]:
    return tuple(node.labels[key] for key in _TREE if node.labels.get(key))


def _path_key(path: tuple[str, ...]) -> tuple[object, ...]:
    return tuple(natural(part) for part in path)


def _racks(nodes: list[_Node]) -> tuple[Rack, ...]:
    """NVLink domains by GFD's clique label; other nodes by a label of their rack."""
    cliques: dict[str, list[str]] = {}
    racks: dict[str, list[str]] = {}
    for node in nodes:
        if clique := node.labels.get(_CLIQUE):
            cliques.setdefault(clique, []).append(node.name)
        elif name := _rack_name(node):
            racks.setdefault(name, []).append(node.name)
    found = [
        Rack(name=name, nodes=_sorted(held), link_technology="NVLink")
        for name, held in sorted(cliques.items(), key=lambda item: natural(item[0]))
        if len(held) > 1
    ]
    found += [
        Rack(name=name, nodes=_sorted(held))
        for name, held in sorted(racks.items(), key=lambda item: natural(item[0]))
    ]
    return tuple(found)


def _sorted(names: list[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=natural))


def _rack_name(node: _Node) -> str:
    keys = sorted(key for key in node.labels if _RACK.search(key))
    return node.labels[keys[0]] if keys else ""


def _warnings(file: SourceText, nodes: list[_Node]) -> tuple[str, ...]:
    found = []
    if any(node.labels.get(_CLIQUE) for node in nodes):
        found.append(
            "nvidia.com/gpu.clique names NVLink domains over nodes (fabric.racks); a "
            "plan's islands still end at the node: to plan across one, write the rack "
            "as one node"
        )
    if len({node.labels.get(_TREE[0]) for node in nodes}) > 1:
        found.append("nodes are in several zones: the network between zones is slower "
                     "than the catalogue's figure")  # fmt: skip
    return tuple(f"{file.source}: {words}" for words in found)
