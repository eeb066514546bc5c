"""Which GPUs of a node are an island, and how fast its links are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from shardwright.ingest.importers.combine import Node
from shardwright.ingest.importers.facts import Group, Link
from shardwright.ingest.importers.products import Product
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.topology import GpuLink

_EXACT_GPUS = 10
"""Parts of this many GPUs are divided exactly, larger ones greedily."""


@dataclass(frozen=True)
class Islands:
    """``groups`` is None where the GPU type's own islands hold.

    ``technology`` and ``gbyte_per_s`` override the type's link; ``links`` is what a
    topology lists. ``notes`` hold for all nodes of the type, ``warnings`` for this one.
    """

    groups: tuple[Group, ...] | None
    because: str
    technology: str | None = None
    gbyte_per_s: float | None = None
    links: tuple[GpuLink, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def islands_of(
    node: Node, gpus: int, product: Product, spec: GpuSpec, pcie_islands: str
) -> Islands:
    """The islands of a node by its links; by PCIe where it has none."""
    if node.links is None:
        return Islands(None, f"not printed: {spec.island_gpus} by the catalogue")
    if not node.links:
        return _by_pcie(node, gpus, product, spec, pcie_islands)
    counts = {(x.a, x.b): x.count for x in node.links}
    groups = partition(gpus, counts)
    origin = node.origins.get("links", "")
    name = node.links[0].technology
    words = [str(len(g)) for g in groups]
    because = f"{name} all-to-all in {origin}"
    warnings = []
    whole = sum(len(g) * (len(g) - 1) // 2 for g in groups)
    if whole < len(counts):
        warnings.append(
            f"node {node.name}: {name} is not all-to-all among linked GPUs; they are "
            f"divided into islands of {', '.join(words)} GPUs, and topology.links has "
            "every link"
        )
    switched = _switched(gpus, counts, product)
    full_mesh = len(counts) == gpus * (gpus - 1) // 2 and name == "xGMI"
    links = () if switched or full_mesh else _documents(node.links, product)
    speed, more = _speed(node, groups, counts, product, spec, switched)
    technology = None
    if speed is not None and spec.link_technology.startswith("PCIe"):
        technology = f"{product.technology} bridge"
    return Islands(
        tuple(groups),
        because,
        technology,
        speed,
        links,
        tuple(_counted(counts, product)),
        (*warnings, *more),
    )


def partition(gpus: int, counts: Mapping[tuple[int, int], int | None]) -> list[Group]:
    """GPUs divided into sets that are linked all-to-all.

    The sum of squared sizes is as large as possible, then the links inside, then the
    first in order (greedily in linked parts of more than ten GPUs).
    """
    beside: dict[int, set[int]] = {g: set() for g in range(gpus)}
    for a, b in counts:
        beside[a].add(b)
        beside[b].add(a)
    groups: list[Group] = []
    left = set(range(gpus))
    while left:
        part = _reached(min(left), beside)
        left -= part
        if all(part - {g} <= beside[g] for g in part):
            groups.append(tuple(sorted(part)))
        elif len(part) <= _EXACT_GPUS:
            groups += _exactly(tuple(sorted(part)), beside, counts)
        else:
            groups += _greedily(part, beside)
    return sorted(groups)


def _reached(start: int, beside: Mapping[int, set[int]]) -> set[int]:
    found, stack = {start}, [start]
    while stack:
        for gpu in beside[stack.pop()] - found:
            found.add(gpu)
            stack.append(gpu)
    return found


def _exactly(
    part: Group,
    beside: Mapping[int, set[int]],
    counts: Mapping[tuple[int, int], int | None],
) -> list[Group]:
    near = [sum(1 << j for j, h in enumerate(part) if h in beside[g]) for g in part]

    def inside(members: list[int]) -> int:
        pairs = [(part[i], part[j]) for i in members for j in members if i < j]
        return sum(counts.get(pair) or 1 for pair in pairs)

    @cache
    def best(left: int) -> tuple[int, int, tuple[tuple[int, ...], ...]]:
        if not left:
            return 0, 0, ()
        first = (left & -left).bit_length() - 1
        found: tuple[int, int, tuple[tuple[int, ...], ...]] | None = None
        for mask in _cliques(1 << first, near[first] & left, near):
            members = [i for i in range(len(part)) if mask >> i & 1]
            squares, links, rest = best(left & ~mask)
            value = (squares + len(members) ** 2, links + inside(members))
            groups = (tuple(part[i] for i in members), *rest)
            if found is None or (value, found[2]) > (found[:2], groups):
                found = (*value, groups)
        return found or (0, 0, ())

    return list(best((1 << len(part)) - 1)[2])


def _cliques(clique: int, candidates: int, near: Sequence[int]) -> list[int]:
    found = [clique]
    while candidates:
        low = candidates & -candidates
        candidates ^= low
        i = low.bit_length() - 1
        found += _cliques(clique | low, candidates & near[i], near)
    return found


def _greedily(part: set[int], beside: Mapping[int, set[int]]) -> list[Group]:
    groups, left = [], set(part)
    while left:
        grown = [_grown(start, left, beside) for start in sorted(left)]
        group = min(grown, key=lambda g: (-len(g), g))
        groups.append(group)
        left -= {*group}
    return groups


def _grown(start: int, left: set[int], beside: Mapping[int, set[int]]) -> Group:
    clique, candidates = {start}, beside[start] & left
    while candidates:
        gpu = min(candidates, key=lambda g: (-len(beside[g] & candidates), g))
        clique.add(gpu)
        candidates = candidates & beside[gpu]
    return tuple(sorted(clique))


def _switched(
    gpus: int, counts: Mapping[tuple[int, int], int | None], product: Product
) -> bool:
    """Whether the links go through a switch: every pair prints the whole GPU's count,
    together more than the GPU has."""
    several = {*counts.values()}
    if len(counts) < gpus * (gpus - 1) // 2 or len(several) > 1 or None in several:
        return False
    count = next(iter(several)) or 0
    return count * (gpus - 1) > (product.links or 18)


def _counted(
    counts: Mapping[tuple[int, int], int | None], product: Product
) -> list[str]:
    """What NV# means; it is often read as the generation."""
    found = sorted({count for count in counts.values() if count})
    if not found or not product.link_gbyte_per_s:
        return []
    each = product.link_gbyte_per_s
    speeds = ", ".join(f"NV{n} is {n * each:g}" for n in found)
    return [
        f"NV# counts links, it is no generation: a link of {product.catalogue} carries "
        f"{each:g} GB/s per direction, so {speeds} GB/s"
    ]


def _documents(links: Sequence[Link], product: Product) -> tuple[GpuLink, ...]:
    return tuple(
        GpuLink(
            gpus=(link.a, link.b),
            technology=product.technology or link.technology,
            links=link.count,
            gbyte_per_s=(link.count or 0) * product.link_gbyte_per_s or None,
        )
        for link in links
    )


def _speed(
    node: Node,
    groups: Sequence[Group],
    counts: Mapping[tuple[int, int], int | None],
    product: Product,
    spec: GpuSpec,
    switched: bool,
) -> tuple[float | None, list[str]]:
    """GB/s per direction of the slowest linked GPU inside its island, where it is not
    the catalogue's, and why it is less than it could be."""
    if product.technology == "xGMI":
        return _mesh(node, groups, spec)
    if not product.link_gbyte_per_s or None in counts.values():
        words = "has NVLinks of a speed that is not known: the catalogue's is kept"
        return None, [f"node {node.name}: {product.catalogue} {words}"]
    own = [
        max(mine) if switched else sum(mine)
        for group in groups
        if len(group) > 1
        for g in group
        if (mine := [counts[min(g, h), max(g, h)] or 0 for h in group if h != g])
    ]
    links = min(own)
    speed = links * product.link_gbyte_per_s
    if speed == spec.link_gbyte_per_s:
        return None, []
    warnings = []
    if links < product.links:
        warnings.append(
            f"node {node.name}: {links} NVLinks per GPU inside an island, of the "
            f"{product.links} that {product.catalogue} can have"
        )
    return speed, warnings


def _mesh(
    node: Node, groups: Sequence[Group], spec: GpuSpec
) -> tuple[float | None, list[str]]:
    """xGMI has a link per peer: fewer peers than the catalogue's mesh, less speed."""
    size = min(len(g) for g in groups if len(g) > 1)
    if size >= spec.island_gpus:
        return None, []
    speed = round(spec.link_gbyte_per_s * (size - 1) / (spec.island_gpus - 1), 3)
    return speed, [
        f"node {node.name}: {size - 1} peers over xGMI, of the {spec.island_gpus - 1} "
        f"behind the catalogue's {spec.link_gbyte_per_s:g} GB/s: {speed:g} is written"
    ]


def _by_pcie(
    node: Node, gpus: int, product: Product, spec: GpuSpec, pcie_islands: str
) -> Islands:
    origin = node.origins.get("links", "")
    warnings = []
    technology, speed = None, None
    if not spec.link_technology.startswith("PCIe") and gpus > 1:
        technology, speed = "PCIe", product.pcie_gbyte_per_s
        warnings.append(
            f"node {node.name}: {product.catalogue} has {spec.link_technology}, yet "
            f"{origin} shows no link: PCIe is written instead"
        )
    domains = sorted(node.pcie.numa) if node.pcie else []
    if pcie_islands == "numa" and domains:
        held = {g for domain in domains for g in domain}
        groups = sorted([*domains, *((g,) for g in range(gpus) if g not in held)])
        because = f"NUMA domains of {origin} (--pcie-islands numa)"
    else:
        groups = [tuple(range(gpus))]
        because = f"no fast links in {origin}: the PCIe tree"
        if len(domains) > 1:
            warnings.append(
                f"node {node.name}: its one island over PCIe spans {len(domains)} NUMA "
                "domains; --pcie-islands numa keeps islands inside them"
            )
    return Islands(tuple(groups), because, technology, speed, warnings=tuple(warnings))
