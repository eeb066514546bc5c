"""Every sample gives exactly this cluster file and this table."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.ingest.importers.samples import DATA, SAMPLES

from shardwright.ingest.importers import ImportedCluster, import_cluster


def imported(name: str) -> ImportedCluster:
    sample = SAMPLES[name]
    return import_cluster(sample.files, **sample.options)


@pytest.fixture(autouse=True)
def in_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DATA)


@pytest.mark.parametrize("name", SAMPLES)
def test_golden(name: str, golden: Callable[[str, str], None]) -> None:
    found = imported(name)
    golden(f"import-{name}", f"{found.yaml}\n{found.table()}")
    widest = max(map(len, f"{found.yaml}\n{found.table()}".splitlines()))
    assert widest <= 100


def test_every_file_of_the_folder_is_a_sample() -> None:
    used = {f.rpartition("=")[2] for s in SAMPLES.values() for f in s.files}
    assert {p.name for p in DATA.iterdir()} - used == {"SOURCES.md"}


def test_switched_islands_and_rails_of_a_dgx() -> None:
    (node,) = imported("dgx-a100-12hca").cluster.nodes
    assert node.islands == (tuple(range(8)),)
    assert node.topology is not None
    assert node.topology.links == ()
    assert node.topology.pcie_switches["pcie2"] == (4, 5)
    rails = {nic.name: nic.rail for nic in node.topology.nics}
    # the storage adapters share no switch with a GPU
    assert [rails[f"mlx5_{i}"] for i in (0, 1, 9, 4, 5, 10, 11)] == [
        0,
        1,
        7,
        *[None] * 4,
    ]
    assert node.topology.numa_domains["numa3"] == (0, 1)


def test_bridged_pairs_are_islands_with_the_speed_of_their_links() -> None:
    cluster = imported("bridged").cluster
    (node,) = cluster.nodes
    assert cluster.islands(node) == ((0, 4), (1, 5), (2, 6), (3,), (7,))
    (gpu,) = cluster.gpu_types.values()
    assert gpu.link_gbyte_per_s == 12 * 25
    assert node.topology is not None
    assert {link.gbyte_per_s for link in node.topology.links} == {300.0}
    assert node.topology.path(0, 4) == "link"
    assert node.topology.path(0, 1) == "numa_domain"
    assert node.topology.path(0, 5) == "node"


def test_a_cube_mesh_is_two_quads_and_keeps_every_link() -> None:
    cluster = imported("dgx1v").cluster
    (node,) = cluster.nodes
    assert cluster.islands(node) == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert node.topology is not None
    assert len(node.topology.links) == 16
    (gpu,) = cluster.gpu_types.values()
    # the weakest GPU has links NV1, NV1 and NV2 inside its quad
    assert gpu.link_gbyte_per_s == 4 * 25


def test_a_link_per_pair_is_told_from_a_switch() -> None:
    found = imported("p4d-a100-8")
    assert found.cluster.nodes[0].topology is not None
    assert found.cluster.nodes[0].topology.links == ()
    assert any("counts links, it is no generation" in w for w in found.warnings)


def test_kubernetes_withholds_with_a_reason() -> None:
    found = imported("kubernetes")
    by_name = {node.name: node for node in found.cluster.nodes}
    assert by_name["h100"].node_names() == [f"h100-{i}" for i in range(4)]
    assert by_name["h100-4"].failed == (7,)
    assert by_name["l4"].reserved == (0, 1, 2, 3)
    for reason in ("cordoned", "team=vision:NoSchedule", "KubeletNotReady"):
        assert reason in found.yaml
    assert found.cluster.fabric is not None
    assert [rack.name for rack in found.cluster.fabric.racks] == ["r0", "r1"]


def test_an_nvlink_domain_over_nodes_is_a_rack_with_links() -> None:
    cluster = imported("kubernetes-amd-nvl72").cluster
    assert cluster.fabric is not None
    (rack,) = cluster.fabric.racks
    assert rack.nodes == ("tray",)
    assert (rack.link_technology, rack.link_gbyte_per_s) == ("NVLink5", 900)


def test_slurm_says_who_is_out_and_how_nodes_are_switched() -> None:
    cluster = imported("slurm-yaml").cluster
    by_name = {node.name: node for node in cluster.nodes}
    assert by_name["dgx07"].reserved == tuple(range(8))
    assert by_name["dgx08"].failed == tuple(range(8))
    assert cluster.fabric is not None
    assert [s.name for s in cluster.fabric.switches] == ["row1", "row2", "root"]
    assert [cluster.fabric.height(s.name) for s in cluster.fabric.switches] == [0, 0, 1]


def test_nodes_like_one_share_its_matrix_but_not_its_state() -> None:
    by_name = {n.name: n for n in imported("slurm-like").cluster.nodes}
    assert "cpu001" not in {h for n in by_name.values() for h in n.node_names()}
    assert by_name["dgx"].topology == by_name["dgx07"].topology
    assert by_name["dgx07"].reserved == tuple(range(8))
    assert by_name["dgx"].reserved == ()


def test_nccl_files_take_the_indices_of_the_list_of_gpus(tmp_path) -> None:
    """NCCL's dump has addresses; nvidia-smi's list says which index each has."""
    lines = (DATA / "nvlink.xml").read_text().splitlines()
    buses = [line.split('"')[1] for line in lines if 'class="0x030200"' in line]
    order = [3, 1, 0, 2, 7, 5, 4, 6]
    rows = [f"{i}, {buses[k]}, NVIDIA H100 80GB HBM3" for i, k in enumerate(order)]
    listed = tmp_path / "gpus.csv"
    listed.write_text("index, pci.bus_id, name\n" + "\n".join(rows) + "\n")
    (node,) = import_cluster(["n=nvlink.xml", f"n={listed}"]).cluster.nodes
    assert node.topology is not None
    assert node.topology.numa_domains["numa0"] == (0, 1, 2, 3)
    home = {nic.name: nic.pcie_switch for nic in node.topology.nics}
    assert node.topology.pcie_switches[home["mlx5_3"] or ""] == (0,)
    assert node.pci_bus_ids == {"n": tuple(buses[k] for k in order)}
