"""The samples of tests/data/topo, with what the files leave open."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "data" / "topo"


@dataclass(frozen=True)
class Sample:
    """Files that make one cluster, and the choices they need."""

    files: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


def _one(name: str, gpu: str | None = None, **more: Any) -> Sample:
    return Sample((name,), {**({"gpu": gpu} if gpu else {}), **more})


SAMPLES = {
    "p4d-a100-8": _one("p4d-a100-8.topo.txt", "A100-40"),
    "desk-5": _one("desk-5.topo.txt", "RTX4090"),
    "dgx-a100-12hca": _one("dgx-a100-12hca.topo.txt", "A100-80"),
    "hgx-a100-8": _one("hgx-a100-8.topo.txt", "A100-80"),
    "hgx-h100-8": _one("hgx-h100-8.topo.txt", "H100-SXM"),
    "hgx-h200-12nic": _one("hgx-h200-12nic.topo.txt", "H200"),
    "l40s-4-2nic": _one("l40s-4-2nic.topo.txt", "L40S"),
    "pc-2-nv2": _one("pc-2-nv2.topo.txt", "RTX4090"),
    "pcie-2-phb": _one("pcie-2-phb.topo.txt", "RTX-PRO-6000-SE"),
    "pcie-4-2socket": _one("pcie-4-2socket.topo.txt", "L40S", pcie_islands="numa"),
    "pcie-8-6plus2": _one("pcie-8-6plus2.topo.txt", "L4", pcie_islands="numa"),
    "dgx1v": _one("dgx1v.topo.txt", "A100-40"),
    "h100-without-links": _one("desk-5.topo.txt", "H100-SXM"),
    "nccl-p4d": _one("p4d-24xl.xml"),
    "nccl-ncv4": _one("ncv4.xml"),
    "nccl-ndv4": _one("ndv4.xml", "A100-80"),
    "nccl-ndv5": _one("ndv5.xml", "H100-SXM"),
    "nccl-nvlink": _one("nvlink.xml"),
    "rocm-mi300x": _one("mi300x.rocm.txt", "MI300X"),
    "rocm-quads": _one("quads.rocm.txt", "MI300X"),
    "kubernetes": _one("nodes.json"),
    "kubernetes-amd-nvl72": _one("amd.json"),
    "slurm-conf": Sample(("topology.conf", "slurm.conf")),
    "slurm-yaml": Sample(("topology.conf", "topology.yaml", "slurm.conf", "gres.conf")),
    "slurm-network-only": _one("topology.yaml", "H100-SXM", gpus_per_node=8),
    "slurm-like": Sample(
        ("topology.conf", "slurm.conf", "dgx01=hgx-h100-8.topo.txt"),
        {"gpu": ["h100_sxm=H100-SXM"], "like": "dgx01"},
    ),
    "two-nodes": Sample(
        ("gpu01.topo.txt", "gpu01.gpus.csv", "gpu02.topo.txt", "gpu02.gpus.csv")
    ),
    "bridged": Sample(("bridged.topo.txt", "bridged.gpus.csv")),
}
MATRICES = sorted(p.name for p in DATA.glob("*.topo.txt"))


def parse_matrix(text: str) -> tuple[list[str], dict[str, list[str]], str, list[str]]:
    """Devices, the words of every row, the tails of the head, the lines below."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [line for line in text.splitlines() if "$" not in line]
    head = next(line for line in lines if "Affinity" in line)
    start = head.index("CPU Affinity")
    devices = head[:start].split()
    rows = {words[0]: words for words in map(str.split, lines) if words}
    below = [line for line in lines if re.match(r"\s*NIC\d+:", line)]
    return devices, {d: rows[d] for d in devices}, head[start:], below


def shuffled_matrix(text: str, rng: random.Random) -> str:
    """The same matrix with rows and columns in another order, other white space and
    colours."""
    devices, rows, tails, below = parse_matrix(text)
    gpus = [d for d in devices if d.startswith("GPU")]
    nics = [d for d in devices if d not in gpus]
    columns = [*rng.sample(gpus, len(gpus)), *rng.sample(nics, len(nics))]
    gap = rng.choice(["\t", "   ", " \t "])
    lines = [gap + gap.join([*columns, tails])]
    for device in rng.sample(columns, len(columns)):
        cells = dict(zip(devices, rows[device][1:], strict=False))
        tail = rows[device][len(devices) + 1 :]
        lines.append(gap.join([device, *(cells[c] for c in columns), *tail]))
    lines[0] = f"\x1b[4m{lines[0]}\x1b[0m"
    end = rng.choice(["\n", "\r\n"])
    return end.join(["noise before", *lines, "", "NIC Legend:", *below, ""])


def renumbered_matrix(text: str, new: dict[int, int]) -> str:
    """The matrix of the same machine with GPU g called ``new[g]``."""
    devices, rows, tails, below = parse_matrix(text)
    name = {d: f"GPU{new[int(d[3:])]}" if d.startswith("GPU") else d for d in devices}
    lines = ["\t" + "\t".join([*(name[d] for d in devices), tails])]
    lines += ["\t".join([name[d], *rows[d][1:]]) for d in devices]
    return "\n".join([*lines, "", *below, ""])
