"""Topology in the schema: what is refused and where, and that islands are obeyed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.check.builders import ONE_STAGE, instance, plan_for
from tests.generators import instance_of, random_document

from shardwright.check import check
from shardwright.check.inventory import Inventory
from shardwright.ingest import instance_sha256, load
from shardwright.ingest.load import canonical_json, load_bytes
from shardwright.plan.anatomy import Anatomy
from shardwright.problem.compile import Compiler
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.instance import Instance
from shardwright.schema.plan import GpuRank
from shardwright.solve import solve

INSTANCES = Path(__file__).parents[3] / "instances"
PLAIN = (INSTANCES / "production" / "gemma3-27b-4xl40s.yaml").read_text()
NODE = "    - {name: node, gpu: l40s, gpus: 4}"
FULL = """\
    - name: node
      gpu: l40s
      gpus: 4
      count: 2
      hosts: [a, b]
      islands: [[0, 2], [3, 1]]
      gpu_uuids: {a: [u1, u2, u3, u4]}
      pci_bus_ids: {a: [x, y, z, w], b: [x, y, z, w]}
      topology:
        links: [{gpus: [0, 2], technology: NVLink3, links: 4, gbyte_per_s: 56}]
        pcie_switches: {p0: [0], p1: [1]}
        host_bridges: {h0: [0, 1]}
        numa_domains: {numa0: [0, 1], numa1: [2, 3]}
        paths: {host_bridge_gbyte_per_s: 30}
        nics: [{name: mlx5_0, gbyte_per_s: 25, pcie_switch: p0, rail: 0}]
  fabric:
    switches:
      - {name: leaf, nodes: [node], oversubscription: 1}
      - {name: spine, switches: [leaf], uplink_gbyte_per_s: 400}
    racks: [{name: r1, nodes: [a, b], link_technology: NVLink5}]"""
GOOD = PLAIN.replace(NODE, FULL)


def test_topology_is_read_and_written_again() -> None:
    found = load_bytes(GOOD.encode(), "i.yaml", Path())
    cluster = found.cluster
    (node,) = cluster.nodes
    assert node.node_names() == ["a", "b"]
    assert cluster.islands(node) == ((0, 2), (3, 1))
    assert cluster.island_size(node) == 2
    assert node.topology is not None
    assert node.topology.path(0, 2) == "link"
    assert node.topology.path(0, 1) == "host_bridge"
    assert node.topology.path(2, 3) == "numa_domain"
    assert node.topology.path(0, 3) == "node"
    assert cluster.fabric is not None
    assert cluster.fabric.height("spine") == 1
    again = load_bytes(canonical_json(found).encode(), "i.json", Path())
    assert again == found
    assert instance_sha256(again) == instance_sha256(found)


def test_an_instance_without_topology_has_no_trace_of_it() -> None:
    text = canonical_json(load_bytes(PLAIN.encode(), "i.yaml", Path()))
    (node,) = json.loads(text)["cluster"]["nodes"]
    old = {"name", "gpu", "gpus", "count", "island_gpus", "reserved", "failed"}
    assert set(node) == old
    assert set(json.loads(text)["cluster"]) == {"gpu_types", "nodes"}


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("[3, 1]", "[3, 2]", "nodes.0.islands.1.1"),
        ("[3, 1]", "[3, 9]", "nodes.0.islands.1.1"),
        ("[3, 1]", "[3]", "nodes.0.islands"),
        ("[3, 1]", "[3, 1], []", "nodes.0.islands.2"),
        ("hosts: [a, b]", "hosts: [a]", "nodes.0.hosts"),
        ("hosts: [a, b]", "hosts: [a, a]", "nodes.0.hosts.1"),
        ("{a: [u1", "{c: [u1", "nodes.0.gpu_uuids.c"),
        ("u1, u2", "u1, u1", "nodes.0.gpu_uuids.a.1"),
        ("[u1, u2, u3, u4]", "[u1]", "nodes.0.gpu_uuids.a"),
        ("a: [x, y", "a: [x, x", "nodes.0.pci_bus_ids.a.1"),
        ("gpus: [0, 2]", "gpus: [0, 7]", "nodes.0.topology.links.0.gpus.1"),
        ("gpus: [0, 2]", "gpus: [2, 2]", "nodes.0.topology.links.0.gpus"),
        ("gpus: [0, 2]", "gpus: [0, 2, 3]", "nodes.0.topology.links.0.gpus"),
        ("links: 4", "link: 4", "nodes.0.topology.links.0.link"),
        ("p1: [1]", "p1: [5]", "nodes.0.topology.pcie_switches.p1.0"),
        ("p1: [1]", "p1: [1, 1]", "nodes.0.topology.pcie_switches.p1.1"),
        ("h0: [0, 1]", "h0: [0, 2]", "nodes.0.topology.numa_domains.numa0"),
        ("p0: [0]", "p0: [0, 1, 2]", "nodes.0.topology.host_bridges.h0"),
        ("numa1: [2, 3]", "numa1: [1, 3]", "nodes.0.topology.numa_domains.numa1"),
        ("switch: p0", "switch: q", "nodes.0.topology.nics.0.pcie_switch"),
        ("host_bridge_gbyte_per_s: 30", "numa: 3", "nodes.0.topology.paths.numa"),
        ("nodes: [a, b]", "nodes: [a, z]", "fabric.racks.0.nodes.1"),
        ("nodes: [a, b]", "nodes: [node, b]", "fabric.racks.0.nodes.1"),
        ("switches: [leaf]", "switches: [spine]", "fabric.switches.1.switches"),
        ("switches: [leaf]", "switches: [leef]", "fabric.switches.1.switches.0"),
        ("name: spine", "name: leaf", "fabric.switches.1.name"),
        ("nodes: [node], over", "over", "fabric.switches.0.nodes"),
        ("tion: 1}", "tion: 0.5}", "fabric.switches.0.oversubscription"),
    ],
)
def test_the_path_of_what_is_refused(old: str, new: str, path: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    with pytest.raises(InvalidInstance) as caught:
        load_bytes(text.encode(), "i.yaml", Path())
    assert f"cluster.{path}" in [error.path for error in caught.value.errors]


def test_hosts_have_names_of_their_own() -> None:
    text = GOOD.replace("  fabric:", "    - {name: b, gpu: l40s, gpus: 1}\n  fabric:")
    with pytest.raises(InvalidInstance, match=r"nodes\.1 does not have"):
        load_bytes(text.encode(), "i.yaml", Path())


def test_hosts_take_the_place_of_numbered_names() -> None:
    text = GOOD.replace(
        "  fabric:", "    - {name: node-0, gpu: l40s, gpus: 1}\n  fabric:"
    )
    cluster = load_bytes(text.encode(), "i.yaml", Path()).cluster
    assert [n for g in cluster.nodes for n in g.node_names()] == ["a", "b", "node-0"]


def test_a_cluster_file_that_is_missing_or_broken_is_told(tmp_path: Path) -> None:
    path = tmp_path / "i.yaml"
    start = PLAIN.index("cluster:")
    rest = PLAIN[PLAIN.index("workload:") :]
    path.write_text(f"{PLAIN[:start]}cluster: c.yaml\n{rest}")
    with pytest.raises(InvalidInstance, match=r"cluster: found .*c.yaml: no such file"):
        load(path)
    (tmp_path / "c.yaml").write_text(
        "gpu_types: {l40s: {catalogue: L40S}}\nnodes: []\n"
    )
    with pytest.raises(InvalidInstance, match=r"cluster.nodes: found a list of 0"):
        load(path)


def _with_islands(seed: int, document: dict) -> dict:
    rng = random.Random(seed)
    for group in document["cluster"]["nodes"]:
        gpus = rng.sample(range(group["gpus"]), group["gpus"])
        count = rng.randint(0, group["gpus"] - 1)
        cuts = sorted(rng.sample(range(1, group["gpus"]), count))
        parts = zip([0, *cuts], [*cuts, group["gpus"]], strict=True)
        group["islands"] = [gpus[a:b] for a, b in parts]
    return document


def _document(subject: Instance) -> dict:
    found: dict = json.loads(canonical_json(subject))
    return found


def test_solver_tables_and_checker_read_the_same_islands() -> None:
    """150 seeded clusters: each finds the islands on its own."""
    listed = 0
    for seed in range(150):
        subject = instance_of(_with_islands(seed, random_document(seed)))
        inventory = Inventory(subject.cluster)
        anatomy = Anatomy(subject, None)  # type: ignore[arg-type]
        for island in Compiler(subject).islands:
            ranks = [GpuRank(node=island.node, gpu=g, rank=0) for g in island.gpus]
            (at,) = inventory.islands(ranks)
            assert inventory.usable(at) == {*island.gpus}
            assert {anatomy.island(rank) for rank in ranks} == {at}
            listed += 1
    assert listed > 300


def test_other_numbers_of_the_gpus_of_a_node_are_worth_the_same() -> None:
    """3 seeded partitions of two nodes, with and without a plan that is fast enough."""
    statuses = []
    for seed in range(3):
        rng = random.Random(seed)
        cut, new = rng.randint(1, 3), rng.sample(range(4), 4)
        islands = [[0, 1, 2, 3][:cut], [0, 1, 2, 3][cut:]]
        slo = {
            "workload.max_batch": 4,
            "slo": [{"metric": "tpot", "limit_ms": 0.001 if seed % 2 else 2}],
        }
        places = [islands, [[new[g] for g in island] for island in islands]]
        found = []
        for place in places:
            subject = instance({"cluster.nodes.0.islands": place, **slo})
            result = solve(subject, time_limit_s=20).result
            assert result.plan is None or check(subject, result.plan).ok
            found.append((result.status, result.objectives))
        assert found[0] == found[1]
        statuses.append(found[0][0].value)
    assert statuses.count("OPTIMAL") == 2
    assert statuses.count("INFEASIBLE") == 1


def test_a_stage_across_bridged_pairs_is_refused_by_the_checker() -> None:
    """GPUs 0 and 1 are neighbours by number and no pair: 0 is bridged with 2."""
    right = instance({"cluster.nodes.0.islands": [[1, 0], [2, 3]]})
    wrong = instance({"cluster.nodes.0.islands": [[0, 2], [1, 3]]})
    plan = plan_for(right, ONE_STAGE)
    assert check(right, plan).ok
    broken = {violation.rule for violation in check(wrong, plan).violations}
    assert "stage_inside_island" in broken
