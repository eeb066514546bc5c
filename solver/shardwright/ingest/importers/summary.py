"""What an import found, in a table."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardwright.ingest.importers.assemble import Group
    from shardwright.ingest.importers.imported import ImportedCluster

WIDTH = 100


def summary_text(found: ImportedCluster) -> str:
    """Nodes, GPUs, islands, links and NICs by group, the network, and warnings."""
    # imported here: reading files needs no tables
    from tabulate import tabulate

    cluster = found.cluster
    groups = {group.name: group for group in found.groups}
    rows = []
    for nodes in cluster.nodes:
        group = groups[nodes.name]
        spec = cluster.gpu_types[nodes.gpu]
        sizes = Counter(len(island) for island in cluster.islands(nodes))
        islands = " + ".join(f"{n} x {size}" for size, n in sorted(sizes.items())[::-1])
        gone = len({*nodes.reserved, *nodes.failed})
        rows.append(
            [
                textwrap.shorten(nodes.name, 24, placeholder=".."),
                nodes.count,
                f"{nodes.gpus}" + (f" (-{gone})" if gone else ""),
                group.first.catalogue,
                islands,
                _links(group, spec.link_technology, spec.link_gbyte_per_s),
                _nics(group),
            ]
        )
    total = sum(n.count * n.gpus for n in cluster.nodes)
    usable = sum(
        n.count * (n.gpus - len({*n.reserved, *n.failed})) for n in cluster.nodes
    )
    count = sum(n.count for n in cluster.nodes)
    title = f"{_many(count, 'node')}, {_many(total, 'GPU')}"
    if usable < total:
        title += f", {usable} of them usable"
    heads = ["nodes", "count", "GPUs", "type", "islands", "links, GB/s", "NICs"]
    parts = [title, "", tabulate(rows, heads, tablefmt="simple", disable_numparse=True)]
    if cluster.fabric is not None:
        parts += ["", _network(found)]
    if found.warnings:
        parts += ["", "Notes", *(_bullet(warning) for warning in found.warnings)]
    return "\n".join(parts)


def _links(group: Group, technology: str, gbyte_per_s: float) -> str:
    counts = sorted({link.count for link in group.first.node.links or () if link.count})
    printed = f" (NV{'/'.join(map(str, counts))})" if counts else ""
    words = textwrap.shorten(technology, 26, placeholder="..")
    return f"{words}{printed}, {gbyte_per_s:g}"


def _nics(group: Group) -> str:
    nics = group.first.topology.nics if group.first.topology else ()
    near = sum(1 for nic in nics if nic.rail is not None)
    if not nics:
        return "-"
    return f"{len(nics)}, {near} by GPUs" if near else str(len(nics))


def _network(found: ImportedCluster) -> str:
    fabric = found.cluster.fabric
    if fabric is None:
        return ""
    parts = []
    if fabric.switches:
        tiers = Counter(fabric.height(switch.name) for switch in fabric.switches)
        names = [_many(n, "leaf" if not tier else "switch", "leaves" if not tier else
                       "switches") + ("" if not tier else f" of tier {tier}")
                 for tier, n in sorted(tiers.items())]  # fmt: skip
        parts.append(", ".join(names))
    domains = sum(1 for rack in fabric.racks if rack.link_technology)
    if domains:
        parts.append(_many(domains, "NVLink domain"))
    if len(fabric.racks) > domains:
        parts.append(
            _many(len(fabric.racks) - domains, "rack or block", "racks or blocks")
        )
    return f"Network: {'; '.join(parts)}."


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"


def _bullet(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="- ", subsequent_indent="  ",
                         break_long_words=False, break_on_hyphens=False)  # fmt: skip
