"""Files that speak of one node become one node; what they contradict is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shardwright.ingest.importers.facts import Kind, Link, NodeFacts, PcieFacts, natural
from shardwright.ingest.importers.products import product_of
from shardwright.ingest.refuse import refuse, shown

_NAMED_BY = (Kind.GPU_LIST, Kind.KUBERNETES, Kind.NCCL_XML, Kind.SLURM)
"""Whose name of the GPU is believed first: a PCI id leaves variants open."""


@dataclass(frozen=True)
class Node:
    """A node as all files together have it; ``origins`` says which file had what."""

    name: str
    gpus: int | None
    products: tuple[str, ...] | None
    memory_mib: int | None
    uuids: tuple[str, ...] | None
    bus_ids: tuple[str, ...] | None
    links: tuple[Link, ...] | None
    pcie: PcieFacts | None
    network_gbyte_per_s: float | None
    reserved: Mapping[int, str]
    failed: Mapping[int, str]
    sources: tuple[str, ...]
    origins: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def combine(facts: Iterable[NodeFacts]) -> list[Node]:
    """One node per name, in natural order of names. Raises InvalidInstance."""
    listed = sorted(facts, key=lambda f: (natural(f.name), f.kind, f.source))
    full = {f.name for f in listed}
    by_name: dict[str, list[NodeFacts]] = {}
    for fact in listed:
        by_name.setdefault(_full_name(fact.name, full), []).append(fact)
    names = sorted(by_name, key=natural)
    return [_node(name, by_name[name]) for name in names]


def like(nodes: Sequence[Node], model: str) -> list[Node]:
    """Nodes of which no file has the links take everything of the node ``model`` but
    its names, where they have its GPUs or none are counted. Raises InvalidInstance."""
    found = [node for node in nodes if node.name == model]
    if not found or found[0].links is None:
        known = ", ".join(n.name for n in nodes if n.links is not None) or "none"
        refuse("command line", "--like", shown(model), f"a node with a matrix: {known}")
    return [_filled(node, found[0]) for node in nodes]


def _filled(node: Node, model: Node) -> Node:
    counted = node.gpus is None or node.gpus == model.gpus
    ours = {product_of(text) for text in node.products or ()} - {None}
    theirs = {product_of(text) for text in model.products or ()} - {None}
    alike = not ours or not theirs or ours == theirs
    if node.links is not None or not counted or not alike:
        return node
    origins = {k: f"{v} of {model.name}" for k, v in model.origins.items()}
    return replace(
        model,
        name=node.name,
        products=node.products if ours else model.products,
        memory_mib=node.memory_mib or model.memory_mib,
        uuids=node.uuids,
        bus_ids=node.bus_ids,
        reserved=node.reserved,
        failed=node.failed,
        sources=node.sources,
        origins={**origins, **node.origins},
        warnings=node.warnings,
    )


def _full_name(name: str, known: set[str]) -> str:
    """A short host name stands for the one long name that begins with it."""
    longer = [other for other in known if other.split(".")[0] == name != other]
    return longer[0] if len(longer) == 1 and "." not in name else name


def _node(name: str, facts: Sequence[NodeFacts]) -> Node:
    _one_of_each_kind(name, facts)
    facts = _numbered_alike(sorted(facts, key=lambda f: f.kind))
    _agree(name, facts, "gpus", "GPUs")
    _agree(name, facts, "links", "NVLinks")
    _same_products(name, facts)
    origins: dict[str, str] = {}

    def first(attribute: str, order: Sequence[NodeFacts] = facts) -> Any:
        for fact in order:
            if (value := getattr(fact, attribute)) is not None:
                origins[attribute] = fact.origin
                return value
        return None

    namers = [f for kind in _NAMED_BY for f in facts if f.kind is kind]
    memory = first("memory_mib", namers)
    return Node(
        name=name,
        gpus=first("gpus"),
        products=first("products", namers),
        memory_mib=min(memory) if memory else None,
        uuids=first("uuids"),
        bus_ids=first("bus_ids", facts[::-1]),
        links=first("links"),
        pcie=first("pcie"),
        network_gbyte_per_s=first("network_gbyte_per_s"),
        reserved={g: why for f in reversed(facts) for g, why in f.reserved.items()},
        failed={g: why for f in reversed(facts) for g, why in f.failed.items()},
        sources=tuple(fact.origin for fact in facts),
        origins=origins,
        warnings=tuple(
            f"node {name}, {f.source}: {w}" for f in facts for w in f.warnings
        ),
    )


def _one_of_each_kind(name: str, facts: Sequence[NodeFacts]) -> None:
    first: dict[tuple[Kind, str], NodeFacts] = {}
    for fact in facts:
        # slurm.conf and gres.conf are both Slurm's, and so are the states of nodes
        key = (fact.kind, fact.source if fact.kind is Kind.SLURM else "")
        if key in first:
            other = first[key].source
            found = f"two files of {fact.kind.words} for node {name}"
            refuse(fact.source, "(file)", found, f"one; {other} is the other. "
                   "Name files after their nodes, or give NODE=FILE")  # fmt: skip
        first[key] = fact


def _agree(name: str, facts: Sequence[NodeFacts], attribute: str, words: str) -> None:
    told = [f for f in facts if getattr(f, attribute) is not None]
    for fact in told[1:]:
        here, there = getattr(fact, attribute), getattr(told[0], attribute)
        if here != there:
            found = f"{_count(here)} {words} on node {name}"
            allowed = f"{_count(there)}, as {told[0].source} has them"
            if _count(here) == _count(there):
                found, allowed = f"other {words} on node {name}", "the same " + allowed
            refuse(fact.source, "(file)", found, allowed)


def _count(value: Any) -> int:
    return value if isinstance(value, int) else len(value)


def _same_products(name: str, facts: Sequence[NodeFacts]) -> None:
    known: list[tuple[str, str, NodeFacts]] = []
    for fact in facts:
        for text in sorted(set(fact.products or ())):
            if (product := product_of(text)) is not None:
                known.append((product.catalogue, text, fact))
    for mine, text, fact in known:
        others = {p for p, _, f in known if f is not fact}
        if others and mine not in others:
            where = next(f.source for _, _, f in known if f is not fact)
            found = f"{shown(text)} on node {name}"
            refuse(fact.source, "(file)", found, f"{' or '.join(sorted(others))}, as "
                   f"{where} has it")  # fmt: skip


def _numbered_alike(facts: Sequence[NodeFacts]) -> list[NodeFacts]:
    """NCCL's file renumbered by PCI address to the indices of nvidia-smi's list."""
    lists = [f for f in facts if f.kind is Kind.GPU_LIST and f.bus_ids]
    if not lists:
        return [*facts]
    index = {bus: i for i, bus in enumerate(lists[0].bus_ids or ())}
    return [
        fact.renumbered({i: index[bus] for i, bus in enumerate(fact.bus_ids or ())})
        if fact.kind is Kind.NCCL_XML and {*(fact.bus_ids or ())} == index.keys()
        else fact
        for fact in facts
    ]
