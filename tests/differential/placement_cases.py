"""Random topologies of at most eight GPUs and traffic for them, by seed."""

from __future__ import annotations

from random import Random

from shardwright.problem.topology import (
    LinkClass,
    NetworkLevel,
    Node,
    NodeShape,
    Topology,
    uniform_links,
)
from shardwright.problem.traffic import (
    Collective,
    ReplicaTraffic,
    StageTraffic,
    Traffic,
    Transfer,
)

_SPEEDS = (450, 200, 100, 64, 50, 25, 12, 3)
Links = tuple[tuple[int, ...], ...]


def random_topology(draw: Random) -> Topology:
    """One to four nodes, any mesh inside, rails and leaves between, failed GPUs."""
    speeds = sorted(draw.sample(_SPEEDS, 6), reverse=True)
    classes = tuple(
        LinkClass(f"link{i}", s * 10**9, draw.choice((0, 500, 2000, 8000)))
        for i, s in enumerate(speeds)
    )
    nodes = draw.choice((1, 1, 2, 2, 3, 4))
    gpus = draw.randint(2, 8 // nodes) if nodes < 4 else 2
    kinds = ("H100", "H100", "L4")
    shapes = [
        _shape(draw, gpus, draw.choice(kinds)) for _ in range(draw.choice((1, 1, 2)))
    ]
    leaves = draw.choice((1, 2))
    found = []
    for i in range(nodes):
        usable = tuple(g for g in range(gpus) if draw.random() > 0.12)
        leaf = i % leaves
        domain = f"rack{leaf}" if draw.random() < 0.5 else ""
        shape = draw.randrange(len(shapes))
        found.append(Node(f"n{i}", shape, usable, (leaf, 99), domain))
    network = (NetworkLevel((3,), (draw.choice((3, 4)),)), NetworkLevel((5,), (5,)))
    return Topology(classes, tuple(shapes), tuple(found), network)


def _shape(draw: Random, gpus: int, gpu_type: str) -> NodeShape:
    rails = tuple(range(gpus)) if draw.random() < 0.5 else (-1,) * gpus
    links = draw.choice((_switch, _bridged, _switches, _mesh))(draw, gpus)
    return NodeShape(gpu_type, links, rails, ("",) * gpus, ("",) * gpus)


def _switch(draw: Random, gpus: int) -> Links:
    return uniform_links(gpus, 0)


def _bridged(draw: Random, gpus: int) -> Links:
    """Pairs (i, i + half) on bridges, halves on sockets."""
    half = max(gpus // 2, 1)

    def link(a: int, b: int) -> int:
        if a == b:
            return -1
        if abs(a - b) == half and min(a, b) < half:
            return 0
        return 1 if (a < half) == (b < half) else 2

    return tuple(tuple(link(a, b) for b in range(gpus)) for a in range(gpus))


def _switches(draw: Random, gpus: int) -> Links:
    """PCIe switches of two GPUs below two sockets."""

    def link(a: int, b: int) -> int:
        if a == b:
            return -1
        return 0 if a // 2 == b // 2 else 1 if a // 4 == b // 4 else 2

    return tuple(tuple(link(a, b) for b in range(gpus)) for a in range(gpus))


def _mesh(draw: Random, gpus: int) -> Links:
    rows = [[-1] * gpus for _ in range(gpus)]
    for a in range(gpus):
        for b in range(a):
            rows[a][b] = rows[b][a] = draw.choice((0, 1, 2))
    return tuple(tuple(row) for row in rows)


def random_traffic(draw: Random, topology: Topology) -> Traffic:
    """Replicas for about the usable GPUs; now and then one more than fits."""
    budget = len(topology.usable) + (draw.random() < 0.12)
    if budget > 6:
        budget = draw.choice((budget, 6))
    replicas: list[ReplicaTraffic] = []
    while budget and len(replicas) < 3:
        replica = _replica(draw, budget)
        copies = draw.choice((1, 1, 2)) if 2 * replica.gpus <= budget else 1
        replicas += [replica] * copies
        budget -= replica.gpus * copies
        if draw.random() < 0.4:
            break
    if not replicas:
        replicas = [_replica(draw, 1)]
    transfers: tuple[Transfer, ...] = ()
    if len(replicas) > 1 and draw.random() < 0.3:
        transfers = (Transfer(0, len(replicas) - 1, draw.choice((10**6, 10**8))),)
    combine = "max" if draw.random() < 0.2 else "sum"
    return Traffic(tuple(replicas), transfers, (), combine)  # type: ignore[arg-type]


def _replica(draw: Random, budget: int) -> ReplicaTraffic:
    sizes: list[int] = []
    size = draw.choice([n for n in (1, 2, 3, 4) if n <= budget])
    for _ in range(draw.choice((1, 2, 3, 4))):
        if draw.random() < 0.15:
            size = draw.choice((1, 2, 4))
        if sum(sizes) + size <= budget:
            sizes.append(size)
    stages = {n: _stage(draw, n) for n in {*sizes, 1}}
    hops = tuple(draw.choice((0, 4 * 10**6, 16 * 10**6)) for _ in sizes[1:])
    chosen = tuple(stages[n] for n in sizes) or (stages[1],)
    return ReplicaTraffic(chosen, hops, draw.choice((1, 1, 3)))


def _stage(draw: Random, gpus: int) -> StageTraffic:
    kinds = ("all_reduce", "all_reduce", "all_gather", "all_to_all", "ring")
    own = []
    if gpus > 1:
        kind = draw.choice(kinds)
        own.append(Collective(kind, gpus, 64 * 10**6, calls=draw.choice((1, 20))))  # type: ignore[arg-type]
    if gpus == 4 and draw.random() < 0.4:
        own.append(Collective("all_reduce", 2, 32 * 10**6))
    kind = draw.choice((None, None, None, "H100"))
    return StageTraffic(gpus, tuple(own), kind)
