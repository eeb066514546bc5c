"""Clusters and traffic of the benchmark, made from the catalogue and a seed."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from shardwright.ingest import catalogue
from shardwright.problem.topology import Topology
from shardwright.problem.traffic import (
    Collective,
    Peers,
    ReplicaTraffic,
    StageTraffic,
    Traffic,
    Transfer,
)
from shardwright.schema.cluster import Cluster

SMALL = Path("instances/topology/placement/small.json")
Case = tuple[Topology, Traffic]
_AR, _HOP = 64 * 10**6, 4 * 10**6
"""Bytes of one iteration: all-reduces of a stage, hand-over between stages."""


def small() -> list[dict[str, Any]]:
    """Recorded cases with the optimum that exhaustion found."""
    document = json.loads(SMALL.read_text(encoding="utf-8"))
    cases: list[dict[str, Any]] = document["cases"]
    return cases


def small_case(case: dict[str, Any]) -> Case:
    """A recorded case as topology and traffic."""
    rows = [[speed * 1e9 for speed in row] for row in case["gbyte_per_s"]]
    topology = Topology.of_matrix(rows, case["available"])
    tp, dp = case["tp"], case["dp"]
    ring = Collective("all_reduce", tp, case["tp_allreduce_bytes"])
    stage = StageTraffic(tp, (ring,))
    replica = ReplicaTraffic.uniform(stage, case["pp"], case["pp_bytes"])
    peers = (Peers(tuple(range(dp)), case["dp_bytes"] // tp),) if dp > 1 else ()
    return topology, Traffic((replica,) * dp, (), peers, "max")


def replica(tp: int, stages: int) -> ReplicaTraffic:
    """A pipeline of equal stages: 160 all-reduces per stage, one hop."""
    own = (Collective("all_reduce", tp, _AR, calls=160),) if tp > 1 else ()
    return ReplicaTraffic.uniform(StageTraffic(tp, own), stages, _HOP)


def bridged(
    nodes: int, per_leaf: int, failed: int = 0, rails: bool = False
) -> Topology:
    """H100-NVL nodes: bridges (i, i+4), two sockets, leaves below a spine.

    ``failed`` nodes, spread over the cluster, have lost one GPU each.
    """
    node = {
        "name": "n",
        "gpu": "H100-NVL",
        "gpus": 8,
        "islands": [[i, i + 4] for i in range(4)],
        "topology": {
            "links": [
                {"gpus": [i, i + 4], "technology": "NVLink bridge", "gbyte_per_s": 300}
                for i in range(4)
            ],
            "numa_domains": {"numa0": [0, 1, 2, 3], "numa1": [4, 5, 6, 7]},
            "paths": {"numa_domain_gbyte_per_s": 64, "socket_gbyte_per_s": 30},
        },
    }
    if rails:
        node["topology"] |= {  # type: ignore[operator]
            "pcie_switches": {f"pcie{i}": [i] for i in range(8)},
            "nics": [
                {"name": f"mlx5_{i}", "pcie_switch": f"pcie{i}", "rail": i}
                for i in range(8)
            ],
        }
    broken = {i * nodes // max(failed, 1): i % 8 for i in range(failed)}
    return Topology.from_cluster(_cluster("H100-NVL", node, nodes, per_leaf, broken))


def switched(nodes: int, per_leaf: int, failed: int = 0, seed: int = 0) -> Topology:
    """H100-SXM nodes below leaves, each leaf 2:1 oversubscribed and a rack.

    ``failed`` GPUs, on nodes drawn at random, are out.
    """
    drawn = Random(seed).sample(range(nodes), failed)
    broken = {node: Random(seed + node).randrange(8) for node in drawn}
    node = {"name": "n", "gpu": "H100-SXM", "gpus": 8}
    return Topology.from_cluster(_cluster("H100-SXM", node, nodes, per_leaf, broken))


def _cluster(
    gpu: str, node: dict[str, Any], nodes: int, per_leaf: int, broken: dict[int, int]
) -> Cluster:
    spec = json.loads(catalogue.gpu(gpu).model_dump_json(by_alias=True))
    groups = []
    for i in range(nodes):
        own = {**node, "name": f"node{i:04d}"}
        if i in broken:
            own["failed"] = [broken[i]]
        groups.append(own)
    names = [group["name"] for group in groups]
    leaves = [names[i : i + per_leaf] for i in range(0, nodes, per_leaf)]
    switches: list[dict[str, Any]] = [
        {"name": f"leaf{i:02d}", "nodes": own, "oversubscription": 2}
        for i, own in enumerate(leaves)
    ]
    if len(leaves) > 1:
        switches.append({"name": "spine", "switches": [s["name"] for s in switches]})
    racks = [{"name": f"rack{i:02d}", "nodes": own} for i, own in enumerate(leaves)]
    document = {
        "gpu_types": {gpu: spec},
        "nodes": groups,
        "fabric": {"switches": switches, "racks": racks},
    }
    return Cluster.model_validate_json(json.dumps(document))


def one_host() -> Topology:
    """64 GPUs in one host: bridges (i, i+32), 100, 20 and 10 GB/s."""

    def speed(a: int, b: int) -> float:
        if a == b:
            return 0.0
        if abs(a - b) == 32:
            return 100e9
        return 20e9 if (a < 32) == (b < 32) else 10e9

    return Topology.of_matrix([[speed(a, b) for b in range(64)] for a in range(64)])


def _plain(tp: int, stages: int) -> ReplicaTraffic:
    own = (Collective("all_reduce", tp, _AR),)
    return ReplicaTraffic.uniform(StageTraffic(tp, own), stages, _HOP)


def sixty_four() -> dict[str, Case]:
    """64 GPUs on bridged pairs."""
    host, nodes = one_host(), bridged(8, 8)
    return {
        "one host of 64, tp2 pp32": (host, Traffic((_plain(2, 32),))),
        "one host of 64, 4 x tp2 pp8": (host, Traffic((_plain(2, 8),) * 4)),
        "8 nodes, tp2 pp32": (nodes, Traffic((replica(2, 32),))),
        "8 nodes, 8 x tp2 pp4": (nodes, Traffic((replica(2, 4),) * 8)),
        "8 nodes, 2 x tp4 pp8": (nodes, Traffic((replica(4, 8),) * 2)),
        "8 nodes with rails, tp2 pp32": (
            bridged(8, 8, rails=True),
            Traffic((replica(2, 32),)),
        ),
        "8 nodes, 3 GPUs failed, 29 x tp2": (
            bridged(8, 8, 3),
            Traffic((replica(2, 1),) * 29),
        ),
    }


def _wide() -> ReplicaTraffic:
    """Experts over four nodes: dispatch and combine of 58 layers."""
    exchange = Collective("all_to_all", 32, 40 * 10**6, calls=116)
    return ReplicaTraffic.uniform(StageTraffic(32, (exchange,)), 1, 0)


def thousand() -> dict[str, Case]:
    """1,024 GPUs."""
    mixed = (replica(2, 8),) * 20 + (replica(4, 4),) * 20 + (replica(8, 1),) * 40
    return {
        "bridged, 3 failed, 63 x tp2 pp8": (
            bridged(128, 32, 3, rails=True),
            Traffic((replica(2, 8),) * 63),
        ),
        "switched, 5 failed, 60 x tp8 pp2": (
            switched(128, 32, 5),
            Traffic((replica(8, 2),) * 60),
        ),
        "switched, mixed replicas": (switched(128, 32, 5), Traffic(mixed)),
        "switched, 5 failed, 28 x ep32": (
            switched(128, 32, 5),
            Traffic((_wide(),) * 28),
        ),
    }


def ten_thousand() -> dict[str, Case]:
    """10,240 GPUs in 1,280 nodes, 37 of them failed."""
    topology = switched(1280, 32, 37)
    return {
        "600 x tp8 pp2": (topology, Traffic((replica(8, 2),) * 600)),
        "620 x tp4 pp4": (topology, Traffic((replica(4, 4),) * 620)),
        "5,000 x tp2": (topology, Traffic((replica(2, 1),) * 5000)),
        "300 x tp8 pp1, 600 x tp4 pp2, 150 x tp16": (
            topology,
            Traffic(
                (replica(8, 1),) * 300
                + (replica(4, 2),) * 600
                + (replica(16, 1),) * 150
            ),
        ),
    }


def hard() -> dict[str, Case]:
    """Hard cases: gaps as they are."""
    rails = bridged(8, 8, 3, rails=True)
    pools = (replica(4, 2),) * 4 + (replica(8, 1),) * 4
    transfers = tuple(
        Transfer(a, 4 + b, 50 * 10**6) for a in range(4) for b in range(4)
    )
    return {
        "bridged, 3 failed, 2 x tp2 pp15 on 61 GPUs with rails": (
            rails,
            Traffic((replica(2, 15),) * 2),
        ),
        "1,024 switched, 5 failed, 30 x ep32": (
            switched(128, 32, 5),
            Traffic((_wide(),) * 30),
        ),
        "one host of 64, tp4 pp16": (one_host(), Traffic((_plain(4, 16),))),
        "one host of 64, tp8 pp8": (one_host(), Traffic((_plain(8, 8),))),
        "prefill 4 x tp4 pp2, decode 4 x tp8, KV all to all": (
            switched(8, 4),
            Traffic(pools, transfers),
        ),
    }
