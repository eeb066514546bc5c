"""What cannot be read: which file, which line, what was expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.ingest.importers.samples import DATA

from shardwright.ingest.importers import import_cluster
from shardwright.schema.errors import InvalidInstance

TWO = (
    "\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\n"
    "GPU0\t X \tNV4\t0-7\t0\nGPU1\tNV4\t X \t0-7\t0\n"
)
XML = '<system version="1">\n<cpu numaid="0">\n{}\n</cpu>\n</system>\n'
GPU = '<pci busid="0000:01:00.0" class="0x030200" vendor="0x10de" device="0x2330"/>'
NODES = json.loads((DATA / "nodes.json").read_text())


def refused(tmp_path: Path, text: str | bytes, **options: Any) -> InvalidInstance:
    path = tmp_path / "n.file"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidInstance) as caught:
        import_cluster([f"n={path}"], **{"gpu": "A100-80", **options})
    return caught.value


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("GPU1\tNV4", "GPU1\tNV8", 3, "NV8 for GPU1 and GPU0; NV4, as line 2"),
        ("GPU1\tNV4", "GPU1\tSYS", 3, "SYS for GPU1 and GPU0; NV4, as line 2"),
        ("GPU1\tNV4", "GPU1\tFAST", 3, '"FAST" for GPU1 and GPU0; X, NV#, PIX'),
        ("GPU1\tNV4", "GPU1\tNV0", 3, '"NV0" for GPU1 and GPU0; X, NV#, PIX'),
        ("GPU1\tNV4\t X ", "GPU1\tNV4", 3, "0-7"),
        ("\tNV4\t X \t0-7\t0\n", "\tNV4\n", 3, "1 cells for GPU1; one for each"),
        ("GPU1\tNV4\t X \t0-7\t0\n", "", 2, "no row of GPU1 below it; one row"),
        ("GPU1\tNV4\t X ", "GPU0\t X \tNV4", 3, "a row of GPU0; each device once"),
        ("GPU1\tNV4\t X ", "GPU7\tNV4\t X ", 3, "a row of GPU7; the head has no such"),
        ("\tGPU0\tGPU1\tC", "\tGPU0\tGPU2\tC", 1, "GPUs 0, 2 in the head; GPU0"),
        ("\tGPU0\tGPU1\tC", "\tGPU0\tGPU0\tC", 1, "a device twice in the head"),
        ("GPU1\tNV4\t X ", "GPU1\t X \tNV4", 3, "X for GPU1 and GPU0; X where"),
        ("\tNV4\t X \t0-7\t0", "\tNV4\t X \t0-7\t0\t1\t2", 3, "at most CPU Aff"),
        ("\tNV4\t X \t0-7\t0", "\tNV4\t X \t0-7\tnone", 3, '"none" as NUMA'),
        ("\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\n", "", 1, "a row without a head"),
    ],
)  # fmt: skip
def test_a_matrix_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, words: str
) -> None:
    assert old in TWO
    error = refused(tmp_path, TWO.replace(old, new, 1))
    assert error.errors[0].path == f"line {line}"
    assert words in str(error)
    assert error.source.endswith("n.file")


def test_two_matrices_in_one_file_are_refused(tmp_path: Path) -> None:
    assert "line 5: found a second matrix" in str(
        refused(tmp_path, TWO + "\n" + TWO[1:])
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: found an empty file; one of nvidia-smi topo -m"),
        ("hello", 'line 1: found "hello"; one of nvidia-smi topo -m'),
        (b"GPU\xff", "line 1: found byte 0xff; UTF-8 text"),
        ("a\nb\x00", "line 2"),
        ("apiVersion: v1\n", "line 1: found YAML of kubectl; kubectl get"),
        ("index, name\n", "line 1: found a head without GPUs"),
        ("index, name\n0, NVIDIA L4\n2, NVIDIA L4\n", "line 3: found index 2; GPU 1"),
        ("index, name\n0, NVIDIA L4\n0, NVIDIA L4\n", "line 3: found index 0; GPU 1"),
        ("index, name\n0\n", "line 2: found 1 values; 2, as many as line 1"),
        ("index, uuid\n0, GPU-12345678\n1, GPU-12345678\n", "line 3: found"),
        ("index, memory.total [MiB]\n0, 80 GB\n", 'line 2: found memory "80 GB"; MiB'),
        ("index, pci.bus_id\n0, 17\n", 'line 2: found "17"; a PCI address'),
        ('index, name\n0, "L4\n', "line 2: found broken CSV"),
        ("GPU 0: NVIDIA L4 (UUID: GPU-12345678)\nGPU 1 NVIDIA L4\n", "line 2: found"),
        ("SwitchName=a Nodes=n[1-\n", "line 1: found 'n[1-' with a bracket"),
        ("SwitchName=a\n", "line 1: found switch a with neither"),
        ("SwitchName=a Nodes=n1\nSwitchName=a Nodes=n2\n", "line 2: found switch a"),
        ("SwitchName=a Switches=b\n", "line 1: found switch b below a"),
        ("SwitchName=a Nodes=n[1-900000]\n", "line 1: found more than 100000 names"),
        ("NodeName=n1 Gres=gpu:x:y:z\n", 'line 1: found Gres="gpu:x:y:z"'),
        ("NodeName=n1 Gres=gpu:8\nNodeName=n1 Gres=gpu:8\n", "line 2: found node n1"),
        ("NodeName=n1 Name=gpu\n", "line 1: found neither Count nor File"),
        ("- topology: a\n  tree: 3\n", "0.tree: found 3; a mapping"),
        ("- topology: a\n  tree: {switches: [{switch: b, children: c}]}\n", '"c"'),
        ("- topology: a\n  tree: [\n", "broken YAML"),
        ("<system>\n", "line 2: found broken XML"),
        ("<html></html>", "line 1: found the element <html>; <system> of NCCL"),
        (XML.format(""), "line 1: found no GPU in <system>"),
        (XML.format(f"{GPU}\n{GPU}"), "line 4: found GPU 0000:01:00.0; each GPU once"),
        (XML.format(GPU.replace("0000:01:00.0", "x")), 'line 3: found busid="x"'),
        ("[]", '(document): found a list of 0; the list that kubectl'),
        ('{"items": [{"metadata": {}}]}', "items.0.metadata.name: found null"),
        ('{"items": []}', "items: found 0 nodes, none with GPUs"),
        ('{"items": [', "broken JSON"),
    ],
)  # fmt: skip
def test_other_files_are_refused_with_their_line(
    tmp_path: Path, text: str | bytes, words: str
) -> None:
    assert words in str(refused(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE system [<!ENTITY a SYSTEM "file:///etc/passwd">]>\n<system>&a;</system>',
        '<!DOCTYPE system SYSTEM "http://127.0.0.1/x.dtd"><system/>',
        "<!DOCTYPE lolz [<!ENTITY a 'x'><!ENTITY b '&a;&a;&a;'>]><system>&b;</system>",
    ],
)
def test_document_types_are_refused_before_any_entity(
    tmp_path: Path, text: str
) -> None:
    assert "a document type (DOCTYPE)" in str(refused(tmp_path, text))


def test_deep_or_huge_documents_are_refused(tmp_path: Path) -> None:
    deep = "<system>" + "<pci>" * 100 + "</pci>" * 100 + "</system>"
    assert "a larger document" in str(refused(tmp_path, deep))
    assert "at most 4000000 bytes" in str(refused(tmp_path, b" " * 5_000_000))


def test_kubernetes_paths_name_the_field(tmp_path: Path) -> None:
    for at, value, path in (
        ("labels", {"nvidia.com/gpu.count": "many"}, "items.0.metadata.labels.nvidia"),
        ("name", "h100-1", "items.1.metadata.name"),
        ("name", 7, "items.0.metadata.name"),
    ):
        raw = json.loads(json.dumps(NODES))
        raw["items"][0]["metadata"][at] = value
        assert refused(tmp_path, json.dumps(raw)).errors[0].path.startswith(path)


def test_unknown_gpus_list_near_names(tmp_path: Path) -> None:
    text = "index, name\n0, NVIDIA H100 64GB HBM2\n"
    error = refused(tmp_path, text, gpu=())
    assert "did you mean H100-NVL or H100-PCIe or H100-SXM? say which" in str(error)
    found = import_cluster([f"n={tmp_path / 'n.file'}"], gpu="H100-SXM")
    assert found.groups[0].first.catalogue == "H100-SXM"
    named = import_cluster(
        [f"n={tmp_path / 'n.file'}"], gpu=["NVIDIA H100 64GB HBM2=H100-PCIe"]
    )
    assert named.groups[0].first.catalogue == "H100-PCIe"


def test_slices_of_gpus_are_no_gpus(tmp_path: Path) -> None:
    raw = json.loads(json.dumps(NODES))
    product = "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"
    raw["items"][0]["metadata"]["labels"]["nvidia.com/gpu.product"] = product
    assert "a slice of a GPU is none" in str(refused(tmp_path, json.dumps(raw), gpu=()))


def test_a_matrix_alone_does_not_know_its_gpus(tmp_path: Path) -> None:
    error = str(refused(tmp_path, TWO, gpu=()))
    assert (
        "no name of its GPUs; a list of GPUs beside it (nvidia-smi --query-gpu" in error
    )


def test_several_types_on_a_node_need_a_choice(tmp_path: Path) -> None:
    text = "index, name\n0, NVIDIA L4\n1, NVIDIA L40S\n2, NVIDIA L4\n"
    assert "GPUs of several types" in str(refused(tmp_path, text))
    (node,) = import_cluster([f"n={tmp_path / 'n.file'}"], gpu="L4").cluster.nodes
    assert node.reserved == (1,)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"n.topo": TWO, "n.csv": "index, name\n0, NVIDIA L4\n"},
            "1 GPUs on node n; 2",
        ),
        ({"n.topo": TWO, "n.txt": TWO}, "two files of nvidia-smi topo -m for node n"),
        (
            {"n.csv": "index, name\n0, NVIDIA L4\n", "n.xml": XML.format(GPU)},
            "on node n; ",
        ),
    ],
)
def test_files_of_one_node_must_agree(
    tmp_path: Path, files: dict[str, str], words: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInstance) as caught:
        import_cluster([tmp_path / name for name in files], gpu="L4")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"gpu": "H100"},
            'found "H100"; did you mean H100-NVL or H100-PCIe or H100-SXM?',
        ),
        ({"gpu": ["L4", "L40S"]}, "--gpu: found L4 and L40S; one name"),
        ({"gpu": "L4", "pcie_islands": "rack"}, '--pcie-islands: found "rack"'),
        ({"gpu": "L4", "gpus_per_node": 0}, "--gpus-per-node: found 0"),
        ({"gpu": "L4", "like": "m"}, '--like: found "m"; a node with a matrix: n'),
    ],
)
def test_choices_that_mean_nothing(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    assert words in str(refused(tmp_path, TWO, **options))


def test_no_files_and_missing_files() -> None:
    with pytest.raises(InvalidInstance, match="0 files"):
        import_cluster([])
    with pytest.raises(InvalidInstance, match="no such file"):
        import_cluster(["nowhere.txt"])


def test_what_the_schema_does_not_allow_is_bad_input(tmp_path: Path) -> None:
    text = (DATA / "nvlink.xml").read_text()
    error = refused(tmp_path, text.replace("mlx5_0", "m" * 300))
    assert "at most 200 characters" in str(error)
    odd = text.replace('link_width="16"', 'link_width="²"').replace(
        "32.0 GT", "1.2.3 GT"
    )
    (tmp_path / "n.file").write_text(odd)
    (node,) = import_cluster([f"n={tmp_path / 'n.file'}"]).cluster.nodes
    assert node.topology is not None
    assert node.topology.paths.pcie_switch_gbyte_per_s is None
