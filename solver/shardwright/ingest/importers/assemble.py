"""Nodes into groups of equal ones, and all of it into a cluster document."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from shardwright.ingest import catalogue
from shardwright.ingest.importers.combine import Node
from shardwright.ingest.importers.facts import natural
from shardwright.ingest.importers.islands import Islands, islands_of
from shardwright.ingest.importers.products import Product, near_names, product_of
from shardwright.ingest.refuse import refuse, shown
from shardwright.schema.base import format_size
from shardwright.schema.topology import NodeTopology


@dataclass(frozen=True)
class Choices:
    """What the caller adds to the files.

    ``gpu`` names a catalogue entry for GPUs that no file names; ``gpu_names`` maps a
    printed name to an entry. ``gpus_per_node`` stands in where no file has a count.
    ``pcie_islands``: without fast links, ``node`` or ``numa`` is an island.
    """

    gpu: str | None = None
    gpu_names: Mapping[str, str] | None = None
    gpus_per_node: int | None = None
    pcie_islands: str = "node"


@dataclass(frozen=True)
class Finished:
    """A node with everything decided; ``comments`` by field."""

    name: str
    overrides: tuple[tuple[str, Any], ...]
    catalogue: str
    gpus: int
    islands: Islands
    topology: NodeTopology | None
    reserved: tuple[int, ...]
    failed: tuple[int, ...]
    node: Node
    comments: Mapping[str, str]
    warnings: tuple[str, ...]

    def shape(self) -> str:
        """Equal for nodes that make one group."""
        topology = self.topology and self.topology.model_dump(mode="json")
        parts = [self.catalogue, self.overrides, self.gpus, self.islands.groups,
                 topology, self.reserved, self.failed]  # fmt: skip
        return json.dumps(parts, sort_keys=True)


@dataclass(frozen=True)
class Group:
    """Equal nodes; ``gpu`` is the name of their type in the cluster."""

    name: str
    gpu: str
    members: tuple[Finished, ...]

    @property
    def first(self) -> Finished:
        """The node that stands for all."""
        return self.members[0]


def finish(nodes: Sequence[Node], choices: Choices) -> tuple[list[Finished], list[str]]:
    """Nodes with GPUs, complete; those of which no file knows GPUs are left out.

    Raises InvalidInstance.
    """
    counted = [n for n in nodes if _count(n, choices)]
    without = [n.name for n in nodes if not _count(n, choices)]
    if not counted:
        sources = sorted({source for node in nodes for source in node.sources})
        refuse("import", "(nodes)", f"no GPUs in {', '.join(sources) or 'any file'}",
               "files that list GPUs, or --gpu NAME and --gpus-per-node N")  # fmt: skip
    warnings = []
    if without:
        warnings.append(
            f"{len(without)} nodes without GPUs are left out: {few(without)}"
        )
    _one_unknown(counted, choices)
    return [_finished(node, choices) for node in counted], warnings


def _count(node: Node, choices: Choices) -> int:
    """GPUs of a node; none where a file says that it has none."""
    return (choices.gpus_per_node or 0) if node.gpus is None else node.gpus


def _one_unknown(nodes: Sequence[Node], choices: Choices) -> None:
    """One --gpu NAME cannot stand for two different unknown products."""
    names = choices.gpu_names or {}
    texts = {t for n in nodes for t in n.products or () if not product_of(t)}
    open_ = sorted(texts - names.keys())
    if choices.gpu is not None and len(open_) > 1:
        refuse("import", "--gpu", f"{choices.gpu} for {' and '.join(open_)}",
               "--gpu 'PRINTED=NAME' for each")  # fmt: skip


def _finished(node: Node, choices: Choices) -> Finished:
    gpus = _count(node, choices)
    product, others, why = _product(node, gpus, choices)
    spec = catalogue.gpu(product.catalogue, "--gpu", "import")
    islands = islands_of(node, gpus, product, spec, choices.pcie_islands)
    warnings = [*node.warnings, *islands.warnings]
    overrides: dict[str, Any] = {}
    comments = {"gpu": why, "islands": islands.because}
    comments["gpus"] = node.origins.get("gpus", "--gpus-per-node")
    if node.memory_mib and node.memory_mib * 2**20 != spec.memory_bytes:
        overrides["memory"] = f"{node.memory_mib} MiB"
        comments["memory"] = node.origins["memory_mib"]
        if abs(node.memory_mib * 2**20 / spec.memory_bytes - 1) > 0.1:
            warnings.append(
                f"node {node.name}: {node.memory_mib} MiB of memory where {spec.name} "
                f"has {format_size(spec.memory_bytes)} in the catalogue: the file's "
                "figure is written; check the GPU type"
            )
    if islands.technology:
        overrides["link_technology"] = islands.technology
    if islands.gbyte_per_s:
        overrides["link_gbyte_per_s"] = islands.gbyte_per_s
    if islands.technology or islands.gbyte_per_s:
        origin = node.origins.get("links", "")
        comments["link"] = (
            f"nominal speed of its PCIe slot; no link in {origin}"
            if islands.technology == "PCIe"
            else f"links of {origin}"
        )
    network = node.network_gbyte_per_s
    if network and network != spec.network_gbyte_per_s:
        overrides["network_gbyte_per_s"] = network
        comments["network"] = f"NICs of {node.origins['network_gbyte_per_s']} per GPU"
    topology = _topology(node, islands)
    if topology is not None:
        comments["topology"] = node.origins.get("pcie") or node.origins.get("links", "")
        if any(nic.rail is not None for nic in topology.nics):
            comments["topology"] += "; rails counted along the GPUs"
    reserved = {**_by_gpu(node.reserved, gpus), **others}
    failed = _by_gpu(node.failed, gpus)
    for field, withheld in (("reserved", reserved), ("failed", failed)):
        if withheld:
            comments[field] = "; ".join(dict.fromkeys(withheld.values()))
    return Finished(
        name=node.name,
        overrides=tuple(sorted(overrides.items())),
        catalogue=product.catalogue,
        gpus=gpus,
        islands=islands,
        topology=topology,
        reserved=tuple(sorted(reserved)),
        failed=tuple(sorted(failed)),
        node=node,
        comments=comments,
        warnings=tuple(warnings),
    )


def _by_gpu(reasons: Mapping[int, str], gpus: int) -> dict[int, str]:
    """Reasons by GPU; what holds for the node (-1) holds for each."""
    whole = dict.fromkeys(range(gpus), reasons[-1]) if -1 in reasons else {}
    return {**{g: why for g, why in reasons.items() if g >= 0}, **whole}


def few(names: Sequence[str]) -> str:
    """The first of some names."""
    return f"{', '.join(names[:4])}{' ...' if names[4:] else ''}"


def _topology(node: Node, islands: Islands) -> NodeTopology | None:
    told = node.pcie.document() if node.pcie else None
    if not islands.links:
        return told
    return (told or NodeTopology()).model_copy(update={"links": islands.links})


def _product(
    node: Node, gpus: int, choices: Choices
) -> tuple[Product, dict[int, str], str]:
    """The node's GPU type, GPUs of another type (reserved), and where it is from."""
    asked = _catalogue_name(choices.gpu) if choices.gpu else None
    texts = node.products or ()
    origin = node.origins.get("products", "")
    found = [_named(text, choices) for text in texts]
    if not any(found):
        if asked is None:
            _refuse_unknown(node, texts)
        printed = f"{shown(texts[0])} in {origin}; " if texts else ""
        return asked, {}, f"{printed}--gpu {asked.catalogue}"
    names = {product.catalogue if product else "" for product in found}
    if len(names) == 1 and found[0] is not None:
        return found[0], {}, f"{shown(texts[0])} in {origin}"
    if asked is None or asked.catalogue not in names:
        printed = " and ".join(sorted(set(texts)))
        refuse(origin, f"node {node.name}", f"GPUs of several types: {printed}",
               "one type per node; --gpu NAME keeps the GPUs of a known type and "
               "reserves the others")  # fmt: skip
    others = {
        g: f"{texts[g]}, a GPU of another type than the node's {asked.catalogue}"
        for g, product in enumerate(found)
        if product is None or product.catalogue != asked.catalogue
    }
    mine = next(g for g in range(gpus) if g not in others)
    return asked, others, f"{shown(texts[mine])} in {origin}; --gpu {asked.catalogue}"


def _named(text: str, choices: Choices) -> Product | None:
    given = (choices.gpu_names or {}).get(text)
    return _catalogue_name(given) if given else product_of(text)


def _catalogue_name(name: str) -> Product:
    known = catalogue.names("gpu")
    product = product_of(name)
    if product is None:
        allowed = f"a GPU type of the catalogue: {', '.join(known)}"
        refuse("command line", "--gpu", shown(name), near_names(name) + allowed)
    return product


def _refuse_unknown(node: Node, texts: Sequence[str]) -> NoReturn:
    if not texts:
        allowed = (
            "a list of GPUs beside it (nvidia-smi --query-gpu=index,uuid,pci.bus_id,"
            "name,memory.total --format=csv), or --gpu NAME"
        )
        source = ", ".join(node.sources)
        refuse(source, f"node {node.name}", "no name of its GPUs", allowed)
    sharing = (
        " (a slice of a GPU is none: plan whole GPUs)" if "MIG" in texts[0] else ""
    )
    refuse(node.origins["products"], f"node {node.name}",
           f"an unknown GPU, {shown(texts[0])}{sharing}",
           f"{near_names(texts[0])}say which with --gpu NAME; "
           f"the catalogue has {', '.join(catalogue.names('gpu'))}")  # fmt: skip


def grouped(nodes: Sequence[Finished]) -> list[Group]:
    """Groups of equal nodes, by the natural order of their first; named after what
    their hosts' names have in common."""
    by_shape: dict[str, list[Finished]] = {}
    for node in sorted(nodes, key=lambda n: natural(n.name)):
        by_shape.setdefault(node.shape(), []).append(node)
    types = _type_names(nodes)
    taken = {node.name for node in nodes}
    groups: list[Group] = []
    for members in by_shape.values():
        first = members[0]
        gpu = types[first.catalogue, first.overrides]
        name = first.name
        if len(members) > 1:
            name = _free(_common([m.name for m in members]) or gpu, taken)
            taken.add(name)
        groups.append(Group(name, gpu, tuple(members)))
    return groups


def _type_names(
    nodes: Sequence[Finished],
) -> dict[tuple[str, tuple[tuple[str, Any], ...]], str]:
    """h100-sxm; h100-sxm-2 for the same type with other figures."""
    kinds = sorted({(n.catalogue, n.overrides) for n in nodes}, key=repr)
    kinds.sort(key=lambda kind: (kind[0], len(kind[1])))
    seen: dict[str, int] = {}
    names = {}
    for kind in kinds:
        count = seen[kind[0]] = seen.get(kind[0], 0) + 1
        names[kind] = kind[0].lower() + (f"-{count}" if count > 1 else "")
    return names


def _common(names: Sequence[str]) -> str:
    prefix = names[0]
    for name in names[1:]:
        while not name.startswith(prefix):
            prefix = prefix[:-1]
    return prefix.rstrip("0123456789").rstrip("-_.")


def _free(name: str, taken: set[str]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}-nodes" if count == 2 else f"{name}-nodes-{count - 1}"
    return candidate


def check(choices: Choices) -> None:
    """Refuse choices that mean nothing. Raises InvalidInstance."""
    for name in (choices.gpu, *(choices.gpu_names or {}).values()):
        if name is not None:
            _catalogue_name(name)
    if choices.pcie_islands not in ("node", "numa"):
        found = shown(choices.pcie_islands)
        refuse("command line", "--pcie-islands", found, "node or numa")
    if choices.gpus_per_node is not None and not 1 <= choices.gpus_per_node <= 1024:
        found = str(choices.gpus_per_node)
        refuse("command line", "--gpus-per-node", found, "a number from 1 to 1024")
