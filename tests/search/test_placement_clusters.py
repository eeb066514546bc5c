"""Topologies of cluster documents, and plans whose GPUs they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.plan.cases import H100, instance

import shardwright as sw
from shardwright.plan.named import placement_of, traffic_of
from shardwright.problem.topology import Topology
from shardwright.schema.cluster import Cluster
from shardwright.schema.result import Status
from shardwright.search.placement_types import PlacementCase

INSTANCES = Path(__file__).parents[2] / "instances" / "topology"


def document(node: dict[str, Any], fabric: dict[str, Any] | None = None) -> Cluster:
    """Nodes of one group, as a file would tell them."""
    told = {
        "gpu_types": {"H100": H100},
        "nodes": [{"name": "n", "gpu": "H100", "gpus": 4, **node}],
    }
    return Cluster.model_validate_json(
        _json(told | ({"fabric": fabric} if fabric else {}))
    )


def _json(value: Any) -> str:
    return json.dumps(value)


def names(
    topology: Topology, *pairs: tuple[tuple[int, int], tuple[int, int]]
) -> list[str]:
    """Link classes of pairs of GPUs."""
    return [topology.classes[topology.link(a, b)].name for a, b in pairs]


def test_islands_of_switches_alone() -> None:
    topology = Topology.from_cluster(document({"count": 2, "failed": [1]}))
    assert topology.nodes[1].usable == (0, 2, 3)
    inside, across = ((0, 0), (0, 3)), ((0, 0), (1, 3))
    assert names(topology, inside, across) == ["NVLink 4", "leaf"]
    # 450 GB/s times 0.75; 50 GB/s times 0.8
    speeds = {c.name: c.bytes_per_s for c in topology.classes}
    assert speeds == {"NVLink 4": 337_500_000_000, "leaf": 40_000_000_000}


def test_links_groups_and_paths_inside_a_node() -> None:
    told = {
        "islands": [[0, 2], [1], [3]],
        "topology": {
            "links": [{"gpus": [0, 2], "technology": "bridge", "gbyte_per_s": 300}],
            "pcie_switches": {"a": [0, 1]},
            "numa_domains": {"left": [0, 1], "right": [2, 3]},
            "paths": {"pcie_switch_gbyte_per_s": 60, "socket_gbyte_per_s": 20},
            "nics": [
                {"name": "mlx0", "pcie_switch": "a", "rail": 0},
                {"name": "mlx1", "numa_domain": "right", "rail": 1},
            ],
        },
    }
    topology = Topology.from_cluster(document(told))
    gpus = [(0, g) for g in range(4)]
    found = names(
        topology,
        (gpus[0], gpus[2]),
        (gpus[0], gpus[1]),
        (gpus[2], gpus[3]),
        (gpus[1], gpus[3]),
    )
    assert found == ["bridge", "pcie_switch", "numa_domain", "socket"]
    shape = topology.shapes[0]
    assert shape.rails == (0, 0, 1, 1)
    assert shape.numa == ("left", "left", "right", "right")
    speeds = {c.name: c.bytes_per_s for c in topology.classes}
    # a path that is not told is the next wider one
    assert speeds["numa_domain"] == speeds["socket"] == 16_000_000_000


def test_leaves_racks_and_oversubscription() -> None:
    fabric = {
        "switches": [
            {"name": "l0", "nodes": ["n-0", "n-1"], "oversubscription": 4},
            {"name": "l1", "nodes": ["n-2"]},
            {"name": "s", "switches": ["l0", "l1"]},
        ],
        "racks": [{"name": "r0", "nodes": ["n-0"]}],
    }
    topology = Topology.from_cluster(document({"count": 3}, fabric))
    found = [topology.classes[topology.link((0, 0), (n, 0))] for n in (1, 2)]
    assert [c.bytes_per_s for c in found] == [40_000_000_000, 10_000_000_000]
    assert [topology.domain(n) for n in range(3)] == ["r0", "l0", "l1"]


def test_rail_switches_make_other_rails_dearer() -> None:
    nics = [{"name": f"x{i}", "pcie_switch": f"p{i}", "rail": i} for i in range(4)]
    told = {
        "count": 2,
        "topology": {"pcie_switches": {f"p{i}": [i] for i in range(4)}, "nics": nics},
    }
    rails = [
        {"name": f"rail{i}", "nodes": ["n"], "rail": i, "oversubscription": 2}
        for i in range(4)
    ]
    fabric = {
        "switches": [*rails, {"name": "s", "switches": [r["name"] for r in rails]}]
    }
    topology = Topology.from_cluster(document(told, fabric))
    same, other = (
        topology.classes[topology.link((0, 1), (1, g))].bytes_per_s for g in (1, 2)
    )
    assert same == 2 * other


def test_a_rack_of_links_joins_nodes() -> None:
    fabric = {
        "racks": [
            {
                "name": "r",
                "nodes": ["n"],
                "link_technology": "NVLink",
                "link_gbyte_per_s": 400,
            }
        ]
    }
    topology = Topology.from_cluster(document({"count": 2}, fabric))
    assert names(topology, ((0, 0), (1, 0))) == ["rack links"]


def test_a_cluster_without_topology_is_named_as_before() -> None:
    case = instance()
    result = sw.solve(case, time_limit_s=20)
    assert "placement" not in result.plan.tables()


@pytest.mark.parametrize("name", ["qwen3-32b-8xa100-bridged", "llama3-70b-8xa100-dgx"])
def test_plans_on_a_topology_are_placed_and_pass_the_checker(name: str) -> None:
    case = sw.load(INSTANCES / f"{name}.yaml")
    result = sw.solve(case, time_limit_s=20)
    plan = result.plan.document
    placed = placement_of(case, plan)
    assert placed.status is Status.OPTIMAL
    assert placed.unrealisable == ()
    topology = Topology.from_cluster(case.cluster)
    numbers = {node.name: i for i, node in enumerate(topology.nodes)}
    named = [
        [(numbers[gpu.node], gpu.gpu) for stage in r.stages for gpu in stage.gpus]
        for r in plan.replicas()
    ]
    own = PlacementCase(topology, traffic_of(case, plan)).goals(named)
    assert own == placed.values
    assert "Placement" in result.table("placement")
