"""Corners of the formats that a file may have and that mean something."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardwright.ingest.importers import import_cluster
from shardwright.ingest.importers.hostlist import expand
from shardwright.ingest.importers.products import product_of
from shardwright.schema.cluster import NodeGroup


def node_of(tmp_path: Path, text: str, name: str = "n", gpu: str = "L4") -> NodeGroup:
    path = tmp_path / name
    path.write_text(text)
    (node,) = import_cluster([f"n={path}"], gpu=gpu).cluster.nodes
    return node


@pytest.mark.parametrize(
    ("printed", "entry"),
    [
        ("NVIDIA H100 80GB HBM3", "H100-SXM"),
        ("NVIDIA-H100-80GB-HBM3", "H100-SXM"),
        ("nvidia_h100_80gb_hbm3", "H100-SXM"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H100 NVL", "H100-NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100-80"),
        ("NVIDIA A100-SXM4-40GB", "A100-40"),
        ("NVIDIA A100 80GB PCIe", "A100-PCIe-80"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GB200", "GB200"),
        ("NVIDIA GH200 480GB", "GH200-96"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000-SE"),
        ("AMD_Instinct_MI300X_OAM", "MI300X"),
        ("AMD Instinct MI325X", "MI325X"),
        ("H100-SXM", "H100-SXM"),
        ("NVIDIA H100", None),
        ("NVIDIA A100", None),
        ("NVIDIA A100-PCIE-40GB", None),
        ("NVIDIA L40", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("", None),
    ],
)
def test_products_are_mapped_or_unknown_never_guessed(
    printed: str, entry: str | None
) -> None:
    found = product_of(printed)
    assert (found.catalogue if found else None) == entry


def test_old_drivers_soc_is_sys_and_nics_have_their_own_names(tmp_path: Path) -> None:
    text = (
        "\tGPU0\tGPU1\tmlx5_0\tCPU Affinity\n"
        "GPU0\t X \tSOC\tPIX\t0-7\nGPU1\tSOC\t X \tSYS\t8-15\nmlx5_0\tPIX\tSYS\t X \n"
    )
    node = node_of(tmp_path, text)
    assert node.topology is not None
    (nic,) = node.topology.nics
    assert (nic.name, nic.pcie_switch, nic.rail) == ("mlx5_0", "pcie0", 0)
    assert node.topology.path(0, 1) == "node"


def test_numa_affinity_of_several_nodes_or_none_is_not_known(tmp_path: Path) -> None:
    for tail in ("0-1", "N/A", "0,1"):
        text = (
            "\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n"
            f"GPU0\tX\tNV2\t0-7\t{tail}\t\tN/A\nGPU1\tNV2\tX\t0-7\t{tail}\t\tN/A\n"
        )
        node = node_of(tmp_path, text)
        assert node.topology is not None
        assert node.topology.numa_domains == {}


def test_a_matrix_that_is_no_tree_is_read_with_a_warning(tmp_path: Path) -> None:
    rows = [["X", "PIX", "SYS"], ["PIX", "X", "PIX"], ["SYS", "PIX", "X"]]
    text = "\tGPU0\tGPU1\tGPU2\tCPU Affinity\n"
    text += "".join(f"GPU{i}\t" + "\t".join(r) + "\t0-7\n" for i, r in enumerate(rows))
    path = tmp_path / "n"
    path.write_text(text)
    found = import_cluster([path], gpu="L4")
    assert any("the matrix is no tree" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    "text",
    [
        "index, name, uuid, memory.total [MiB]\n0, NVIDIA L4, GPU-12345678, 23034 MiB",
        "gpu_uuid, gpu_name, memory.total, index\nGPU-12345678, NVIDIA L4, 23034, 0\n",
        "0, NVIDIA L4, GPU-12345678, 23034 MiB\n",
        "NVIDIA L4, GPU-12345678, 23034\n",
        "GPU 0: NVIDIA L4 (UUID: GPU-12345678)\n",
        "\ufeffuuid,name\r\nGPU-12345678,NVIDIA L4\r\n",
    ],
)
def test_lists_of_gpus_with_and_without_units_and_heads(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "n"
    path.write_text(text, newline="")
    (node,) = import_cluster([path]).cluster.nodes
    assert node.gpu_uuids == {"n": ("GPU-12345678",)}
    assert node.gpu == "l4"


def test_a_lost_gpu_has_failed(tmp_path: Path) -> None:
    text = (
        "index, name, memory.total [MiB]\n"
        "0, NVIDIA L4, 23034 MiB\n1, [Unknown Error], [Unknown Error]\n"
    )
    assert node_of(tmp_path, text).failed == (1,)


def test_other_memory_than_the_catalogues_is_written_and_told(tmp_path: Path) -> None:
    path = tmp_path / "n"
    path.write_text("index, name, memory.total [MiB]\n0, NVIDIA H20, 143771 MiB\n")
    found = import_cluster([path])
    assert found.cluster.gpu_types["h20"].memory_bytes == 143771 * 2**20
    assert any("check the GPU type" in warning for warning in found.warnings)


def test_equal_types_with_other_figures_have_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("index, name\n0, NVIDIA L4\n")
    (tmp_path / "b").write_text("index, name, memory.total\n0, NVIDIA L4, 22000\n")
    cluster = import_cluster([tmp_path / "a", tmp_path / "b"]).cluster
    assert [n.gpu for n in cluster.nodes] == ["l4", "l4-2"]


def test_four_gpus_of_an_xgmi_mesh_reach_less(tmp_path: Path) -> None:
    text = "==== Link Type between two GPUs ====\n  GPU0 GPU1 GPU2 GPU3\n" + "".join(
        f"GPU{a} " + " ".join("0" if a == b else "XGMI" for b in range(4)) + "\n"
        for a in range(4)
    )
    path = tmp_path / "n"
    path.write_text(text)
    found = import_cluster([path], gpu="MI300X")
    assert found.cluster.gpu_types["mi300x"].link_gbyte_per_s == 448 * 3 / 7


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", ["a"]),
        ("a[08-11]", ["a08", "a09", "a10", "a11"]),
        ("a[1,3-4],b", ["a1", "a3", "a4", "b"]),
        ("r[1-2]n[1-2]x", ["r1n1x", "r1n2x", "r2n1x", "r2n2x"]),
    ],
)
def test_host_lists(text: str, names: list[str]) -> None:
    assert expand(text) == names


def test_scontrol_blocks_and_states(tmp_path: Path) -> None:
    path = tmp_path / "scontrol.txt"
    path.write_text(
        "NodeName=n1 Arch=x86_64 CoresPerSocket=56\n"
        "   Gres=gpu:nvidia_l40s:4(S:0-1)\n   State=MIXED ThreadsPerCore=2\n\n"
        "NodeName=n2 Arch=x86_64\n   Gres=gpu:nvidia_l40s:4\n"
        "   State=IDLE+DRAIN Reason=bad cable [root@2026-01-01]\n"
    )
    nodes = {n.name: n for n in import_cluster([path]).cluster.nodes}
    assert nodes["n1"].reserved == ()
    assert nodes["n2"].reserved == (0, 1, 2, 3)
    assert "bad cable" in import_cluster([path]).yaml


def test_block_topology_is_racks(tmp_path: Path) -> None:
    path = tmp_path / "topology.conf"
    path.write_text(
        "BlockName=b1 Nodes=n[1-2]\nBlockName=b2 Nodes=n[3-4]\nBlockSizes=2\n"
    )
    cluster = import_cluster([path], gpu="H200", gpus_per_node=8).cluster
    assert cluster.fabric is not None
    assert [rack.nodes for rack in cluster.fabric.racks] == [("n1", "n2"), ("n3", "n4")]


def test_short_host_names_are_the_long_ones(tmp_path: Path) -> None:
    (tmp_path / "n1.conf").write_text("SwitchName=s Nodes=n1\n")
    listed = tmp_path / "list"
    listed.write_text("index, name\n0, NVIDIA L4\n")
    files = [f"n1.example.com={listed}", str(tmp_path / "n1.conf")]
    cluster = import_cluster(files).cluster
    assert cluster.fabric is not None
    assert cluster.fabric.switches[0].nodes == ("n1.example.com",)


@pytest.mark.parametrize(
    ("file", "node"),
    [
        ("gpu01.topo.txt", "gpu01"),
        ("gpu01-nvidia-smi-topo.log", "gpu01"),
        ("gpu01/topo.txt", "gpu01"),
        ("gpu01.example.com.csv", "gpu01.example.com"),
    ],
)
def test_nodes_are_named_after_files(tmp_path: Path, file: str, node: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("index, name\n0, NVIDIA L4\n")
    assert import_cluster([path]).cluster.nodes[0].name == node
