"""The network of the files, cut down to the nodes that have GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shardwright.ingest.importers.facts import FabricFacts, natural
from shardwright.schema.topology import Fabric, Rack, Switch


def fabric_of(
    facts: Sequence[FabricFacts],
    groups: Mapping[str, Sequence[str]],
    links: Mapping[str, tuple[str, float]],
) -> tuple[Fabric | None, dict[str, str], list[str]]:
    """The network, where switches and racks are from, and warnings.

    ``groups`` has the nodes of every group, ``links`` technology and GB/s of every
    node's GPUs. A group that is in one switch as a whole is written by its name.
    """
    ordered = sorted(facts, key=lambda f: (f.rank, f.source))
    names = _Names(groups)
    origins: dict[str, str] = {}
    warnings: list[str] = []
    switches: list[Switch] = []
    racks: list[Rack] = []
    for fact in ordered:
        mine = _pruned(fact.switches, names)
        if mine and switches:
            warnings.append(f"{fact.source}: its switches are not used; "
                            f"{origins['switches']} has them")  # fmt: skip
        elif mine:
            switches, origins["switches"] = mine, fact.origin
        if not racks and (
            racks := [r for x in fact.racks if (r := _rack(x, names, links))]
        ):
            origins["racks"] = fact.origin
    if not switches and not racks:
        return None, {}, warnings
    held = {n for s in switches for g in s.nodes or () for n in groups.get(g, (g,))}
    loose = [n for nodes in groups.values() for n in nodes if n not in held]
    if switches and loose:
        few = f"{', '.join(loose[:4])}{' ...' if loose[4:] else ''}"
        warnings.append(f"nodes on no switch of {origins['switches']}: {few}")
    switches.sort(key=lambda s: (s.nodes is None, natural(s.name)))
    racks.sort(key=lambda r: natural(r.name))
    return Fabric(switches=tuple(switches), racks=tuple(racks)), origins, warnings


class _Names:
    """Names of nodes in the cluster: as they are, or a long name's short form."""

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        self.groups = groups
        nodes = [node for held in groups.values() for node in held]
        short: dict[str, list[str]] = {}
        for node in nodes:
            short.setdefault(node.split(".")[0], []).append(node)
        self._known = {s: held[0] for s, held in short.items() if len(held) == 1}
        self._known |= {node: node for node in nodes}

    def of(self, names: Sequence[str]) -> tuple[str, ...]:
        """Nodes of the cluster among some names, whole groups by their own name."""
        found = {self._known[n] for n in names if n in self._known}
        whole = [
            group
            for group, held in self.groups.items()
            if len(held) > 1 and found >= {*held}
        ]
        left = found - {n for group in whole for n in self.groups[group]}
        return tuple(sorted([*whole, *left], key=natural))


def _pruned(switches: Sequence[Switch], names: _Names) -> list[Switch]:
    """Switches above nodes of the cluster; leaves first decide what is above them."""
    kept: dict[str, Switch] = {}
    for switch in switches:
        if switch.nodes and (nodes := names.of(switch.nodes)):
            kept[switch.name] = switch.model_copy(update={"nodes": nodes})
    open_ = [switch for switch in switches if switch.switches]
    while True:
        # a switch is settled when all below it are kept or known to be empty
        waiting = {switch.name for switch in open_}
        ready = [s for s in open_ if not waiting & {*(s.switches or ())}]
        if not ready:
            break
        for switch in ready:
            open_.remove(switch)
            below = sorted({*(switch.switches or ())} & kept.keys(), key=natural)
            if below:
                update = {"switches": tuple(below)}
                kept[switch.name] = switch.model_copy(update=update)
    return [*kept.values(), *open_]


def _rack(
    rack: Rack, names: _Names, links: Mapping[str, tuple[str, float]]
) -> Rack | None:
    nodes = names.of(rack.nodes)
    if not nodes:
        return None
    update: dict[str, object] = {"nodes": nodes}
    if rack.link_technology is not None:
        hosts = [h for n in nodes for h in names.groups.get(n, (n,))]
        known = {links[h] for h in hosts if h in links}
        if len(known) == 1:
            technology, speed = known.pop()
            update |= {"link_technology": technology, "link_gbyte_per_s": speed}
    return rack.model_copy(update=update)
