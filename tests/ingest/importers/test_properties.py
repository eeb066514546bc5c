"""Order never matters, what is written reads back, only refusals escape."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.ingest.importers.samples import (
    DATA,
    MATRICES,
    SAMPLES,
    renumbered_matrix,
    shuffled_matrix,
)

from shardwright.ingest import load
from shardwright.ingest.document import parse
from shardwright.ingest.importers import ImportedCluster, import_cluster
from shardwright.ingest.importers.islands import partition
from shardwright.schema.errors import InvalidInstance


@pytest.fixture(autouse=True)
def in_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DATA)


def imported(name: str) -> ImportedCluster:
    return import_cluster(SAMPLES[name].files, **SAMPLES[name].options)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_file_reads_back_as_the_cluster(name: str, tmp_path: Path) -> None:
    """As the file of an instance's ``cluster``, and embedded in the instance."""
    found = imported(name)
    found.save(tmp_path / "c.yaml")
    assert parse((tmp_path / "c.yaml").read_bytes(), "c.yaml") == found.document
    plain = DATA.parents[2] / "instances" / "production" / "gemma3-27b-4xl40s.yaml"
    raw = parse(plain.read_bytes(), "i.yaml")
    for i, cluster in enumerate(("c.yaml", found.document)):
        path = tmp_path / f"i{i}.json"
        path.write_text(json.dumps({**raw, "cluster": cluster}))
        assert load(path).cluster == found.cluster


@pytest.mark.parametrize("name", [n for n, s in SAMPLES.items() if len(s.files) > 1])
def test_the_order_of_files_does_not_matter(name: str) -> None:
    sample, first = SAMPLES[name], imported(name)
    again = import_cluster(sample.files[::-1], **sample.options)
    assert (again.yaml, again.table()) == (first.yaml, first.table())


@pytest.mark.parametrize("name", MATRICES)
def test_the_order_of_rows_and_columns_does_not_matter(name: str, tmp_path) -> None:
    text = (DATA / name).read_text()
    first = import_cluster([f"n={name}"], gpu="A100-80")
    for seed in range(5):
        path = tmp_path / "again.txt"
        path.write_bytes(shuffled_matrix(text, random.Random(seed)).encode())
        again = import_cluster([f"n={path}"], gpu="A100-80")
        assert again.document == first.document
        assert again.cluster == first.cluster


@pytest.mark.parametrize("name", MATRICES)
def test_new_numbers_of_gpus_change_nothing_but_numbers(name: str, tmp_path) -> None:
    text = (DATA / name).read_text()
    before = import_cluster([f"n={name}"], gpu="A100-80").cluster
    (old,) = before.nodes
    for seed in range(5):
        new = dict(enumerate(random.Random(seed).sample(range(old.gpus), old.gpus)))
        path = tmp_path / "again.txt"
        path.write_text(renumbered_matrix(text, new))
        after = import_cluster([f"n={path}"], gpu="A100-80").cluster
        (node,) = after.nodes
        sizes = [
            Counter(map(len, cluster.islands(group)))
            for cluster, group in ((before, old), (after, node))
        ]
        assert sizes[0] == sizes[1]
        assert after.gpu_types == before.gpu_types
        pairs = [(a, b) for a in range(old.gpus) for b in range(a)]
        if old.topology is not None:
            assert node.topology is not None
            for a, b in pairs:
                assert node.topology.path(new[a], new[b]) == old.topology.path(a, b)


def _lines(text: str, rng: random.Random) -> str:
    head, *rows = text.splitlines()
    return "\n".join([head, *rng.sample(rows, len(rows))]) + "\n"


def _items(text: str, rng: random.Random) -> str:
    raw = json.loads(text)
    raw["items"] = rng.sample(raw["items"], len(raw["items"]))
    return json.dumps(raw)


def _cpus(text: str, rng: random.Random) -> str:
    start, *cpus, end = text.replace("</system>", "<cpu </system>").split("<cpu ")
    mixed = "".join(f"<cpu {cpu}" for cpu in rng.sample(cpus, len(cpus)))
    return f"{start}{mixed}{end}"


@pytest.mark.parametrize(
    ("name", "mixed"),
    [
        ("gpu01.gpus.csv", _lines),
        ("bridged.gpus.csv", _lines),
        ("topology.conf", _lines),
        ("gres.conf", _lines),
        ("nodes.json", _items),
        ("amd.json", _items),
        ("nvlink.xml", _cpus),
        ("p4d-24xl.xml", _cpus),
    ],
)
def test_the_order_inside_other_files_does_not_matter(
    name: str, mixed: Callable[[str, random.Random], str], tmp_path: Path
) -> None:
    extra = {"gpu": "H100-SXM", "gpus_per_node": 8} if name == "topology.conf" else {}
    first = import_cluster([f"n={name}"], **extra)
    for seed in range(5):
        path = tmp_path / "again"
        path.write_text(mixed((DATA / name).read_text(), random.Random(seed)))
        again = import_cluster([f"n={path}"], **extra)
        assert again.document == first.document


def _random_tree(rng: random.Random) -> list[tuple[int, int, int]]:
    """A (domain, bridge, switch) for each of some GPUs."""
    leaves = [[rng.randrange(2) for _ in range(3)] for _ in range(rng.randint(2, 10))]
    return [(d, 4 * d + b, 16 * d + 4 * b + s) for d, b, s in leaves]


def _cell(a: tuple[int, int, int], b: tuple[int, int, int]) -> str:
    shared = [x == y for x, y in zip(a, b, strict=True)]
    return ("SYS", "NODE", "PHB", "PXB")[sum(shared)]


def test_random_trees_are_found_again(tmp_path: Path) -> None:
    """100 seeded machines: the path of every pair is the one it was printed from."""
    kinds = {
        "PXB": "pcie_switch",
        "PHB": "host_bridge",
        "NODE": "numa_domain",
        "SYS": "node",
    }
    seen: Counter[str] = Counter()
    path = tmp_path / "m.txt"
    for seed in range(100):
        tree = _random_tree(random.Random(seed))
        gpus = range(len(tree))
        lines = [
            "\t" + "\t".join(f"GPU{g}" for g in gpus) + "\tCPU Affinity\tNUMA Affinity"
        ]
        for a in gpus:
            cells = ["X" if a == b else _cell(tree[a], tree[b]) for b in gpus]
            lines.append("\t".join([f"GPU{a}", *cells, "0-7", str(tree[a][0])]))
        path.write_text("\n".join(lines))
        (node,) = import_cluster([f"n={path}"], gpu="L4").cluster.nodes
        for a in gpus:
            for b in range(a):
                expected = kinds[_cell(tree[a], tree[b])]
                found = node.topology.path(a, b) if node.topology else "node"
                assert found == expected, (seed, a, b)
                seen[expected] += 1
    assert min(seen[kind] for kind in kinds.values()) > 150


def test_partitions_are_all_to_all_and_best() -> None:
    """400 seeded graphs of up to 6 GPUs against every partition."""
    for seed in range(400):
        rng = random.Random(seed)
        gpus = rng.randint(1, 6)
        share = rng.random()
        pairs = [(a, b) for b in range(gpus) for a in range(b) if rng.random() < share]
        counts: dict[tuple[int, int], int | None] = {
            p: rng.randint(1, 3) for p in pairs
        }
        found = partition(gpus, counts)
        assert sorted(g for group in found for g in group) == list(range(gpus))
        best = max(_value(p, counts) for p in _partitions(list(range(gpus)), counts))
        assert _value(found, counts) == best, seed


def _value(groups, counts) -> tuple[int, int]:
    inside = sum(n or 1 for (a, b), n in counts.items()
                 if any(a in g and b in g for g in groups))  # fmt: skip
    return sum(len(g) ** 2 for g in groups), inside


def _partitions(gpus, counts):
    if not gpus:
        yield []
        return
    first, rest = gpus[0], gpus[1:]
    for groups in _partitions(rest, counts):
        yield [(first,), *groups]
        for i, group in enumerate(groups):
            if all((min(first, g), max(first, g)) in counts for g in group):
                yield [*groups[:i], (first, *group), *groups[i + 1 :]]


def test_broken_files_are_refused_and_nothing_else(tmp_path: Path) -> None:
    """300 seeded spoilings of every format: a cluster or InvalidInstance."""
    files = sorted(p for p in DATA.iterdir() if p.suffix != ".md")
    outcomes: Counter[str] = Counter()
    for seed in range(300):
        rng = random.Random(seed)
        data = bytearray(rng.choice(files).read_bytes())
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randint(1, 40)]
                case 2:
                    data[at:at] = data[max(0, at - 30) : at]
                case _:
                    data[at:at] = rng.choice(
                        [b"NV4", b"\t", b"\n", b"SYS", b'"', b"{", b"99"]
                    )
            data = data or bytearray(b" ")
        path = tmp_path / "spoiled"
        path.write_bytes(data)
        try:
            import_cluster([f"n={path}"], gpu="A100-80", gpus_per_node=8)
            outcomes["read"] += 1
        except InvalidInstance as refused:
            assert refused.errors[0].allowed
            outcomes["refused"] += 1
    assert outcomes["read"] > 20
    assert outcomes["refused"] > 200
