"""From the files of tools to a cluster: ``import_cluster`` and what it returns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shardwright.ingest import catalogue
from shardwright.ingest.document import parse
from shardwright.ingest.importers import assemble
from shardwright.ingest.importers.assemble import Choices, Finished, Group
from shardwright.ingest.importers.combine import combine
from shardwright.ingest.importers.combine import like as alike
from shardwright.ingest.importers.facts import FabricFacts, FileFacts, NodeFacts
from shardwright.ingest.importers.gpu_list import is_gpu_list, read_gpu_list
from shardwright.ingest.importers.kubernetes import is_json, read_kubernetes
from shardwright.ingest.importers.nccl_xml import is_xml, read_nccl
from shardwright.ingest.importers.network import fabric_of
from shardwright.ingest.importers.products import product_of
from shardwright.ingest.importers.rocm import is_rocm, read_rocm
from shardwright.ingest.importers.slurm import is_slurm, read_slurm
from shardwright.ingest.importers.slurm_yaml import is_slurm_yaml, read_slurm_yaml
from shardwright.ingest.importers.text import SourceText, read_text
from shardwright.ingest.importers.topo_matrix import is_topo, read_topo
from shardwright.ingest.importers.write import yaml_text
from shardwright.ingest.precheck import precheck
from shardwright.ingest.references import resolve
from shardwright.ingest.refuse import refuse, shown
from shardwright.ingest.validate import validate
from shardwright.schema.cluster import Cluster
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.topology import Fabric

FORMATS = (
    "nvidia-smi topo -m, nvidia-smi --query-gpu=... --format=csv, nvidia-smi -L, "
    "NCCL topology XML, rocm-smi --showtopo, kubectl get nodes -o json, Slurm "
    "topology.conf, topology.yaml, slurm.conf, gres.conf or scontrol show node"
)
MAX_FILES = 10_000
_ENDINGS = re.compile(
    r"[-_. ](txt|csv|xml|log|out|json|conf|yaml|yml|topo|topology|m|gpus?|list|query|"
    r"smi|nvidia|nccl|rocm|showtopo)$",
    re.IGNORECASE,
)
_NO_NAMES = {"", "topo", "topology", "gpus", "gpu", "nvidia", "nccl", "rocm", "query",
             "system", "smi", "list"}  # fmt: skip


@dataclass(frozen=True)
class ImportedCluster:
    """A cluster and what is known of where it is from.

    ``document`` is what the file has: GPU types as references into the catalogue.
    ``cluster`` is the same read back as an instance's would be. ``warnings`` say what
    the files leave open or seem to have wrong.
    """

    document: Mapping[str, Any]
    cluster: Cluster
    warnings: tuple[str, ...]
    groups: tuple[Group, ...]
    sources: tuple[str, ...]
    _comments: Mapping[tuple[str | int, ...], str]

    @cached_property
    def yaml(self) -> str:
        """The cluster file, with a comment where each figure is from."""
        head = ["A cluster, imported from:", *(f"  {s}" for s in self.sources)]
        head += ["Speeds and figures without a comment are the catalogue's; GB/s are "
                 "per direction."]  # fmt: skip
        head += [f"Note: {warning}" for warning in self.warnings]
        return yaml_text(self.document, head, self._comments)

    def save(self, path: str | Path) -> None:
        """Write the cluster file, whole or not at all. Raises InvalidInstance."""
        path = Path(path)
        beside = path.with_name(f".{path.name}.part")
        try:
            beside.write_text(self.yaml, encoding="utf-8")
            beside.replace(path)
        except OSError as error:
            refuse(
                str(path), "(file)", error.strerror or str(error), "a path to write to"
            )

    def table(self) -> str:
        """What was found, as text of at most 100 columns."""
        from shardwright.ingest.importers.summary import summary_text

        return summary_text(self)

    def as_dict(self) -> dict[str, Any]:
        """The cluster document, sources and warnings, for JSON."""
        return {
            "cluster": self.document,
            "sources": list(self.sources),
            "warnings": list(self.warnings),
        }


def import_cluster(
    paths: Iterable[str | Path],
    *,
    gpu: str | Sequence[str] = (),
    gpus_per_node: int | None = None,
    like: str | None = None,
    pcie_islands: str = "node",
) -> ImportedCluster:
    """The cluster that some files describe; their formats are told by content.

    Files of one node (``gpu01.topo.txt`` and ``gpu01.csv``) are combined; the node is
    named after the file, or as in ``NODE=FILE``. ``gpu`` is the catalogue's name for
    GPUs that no file names; entries ``PRINTED=NAME`` say what a printed name stands
    for. ``gpus_per_node`` holds where no file counts GPUs; nodes of which no file has
    the links are ``like`` this one. ``pcie_islands`` (``node`` or ``numa``) is what
    counts as an island without fast links.

    Raises InvalidInstance: which file, which line, what was expected.
    """
    everywhere, names = _gpu_names([gpu] if isinstance(gpu, str) else gpu)
    choices = Choices(everywhere, names, gpus_per_node, pcie_islands)
    assemble.check(choices)
    try:
        return _imported(paths, choices, like)
    except ValidationError as error:
        # a figure beyond what the schema allows, such as a name of 300 characters
        first = error.errors(include_url=False)[0]
        at = ".".join(map(str, first["loc"])) or "(cluster)"
        refuse("import", at, shown(first["input"]), first["msg"])


def _imported(
    paths: Iterable[str | Path], choices: Choices, like: str | None
) -> ImportedCluster:
    listed = [_named(path) for path in paths]
    if not 0 < len(listed) <= MAX_FILES:
        refuse("import", "(files)", f"{len(listed)} files", f"1 to {MAX_FILES} files")
    read = [_read(path, node) for node, path in sorted(listed, key=str)]
    known = combine(
        _node_facts(read, like is not None or choices.gpus_per_node is not None)
    )
    nodes, warnings = assemble.finish(alike(known, like) if like else known, choices)
    groups = assemble.grouped(nodes)
    fabric, origins, more = _fabric([f.fabric for f in read if f.fabric], groups)
    told = [w for f in read for w in f.warnings] + warnings + more
    told += _of_nodes(groups) + _of_types(groups)
    document, comments = _document(groups, fabric, origins)
    sources = sorted({s for n in nodes for s in n.node.sources} | {*origins.values()})
    return ImportedCluster(
        document,
        _read_back(yaml_text(document, [], comments)),
        tuple(dict.fromkeys(told)),
        tuple(groups),
        tuple(sources),
        comments,
    )


def _gpu_names(given: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    """The one name for all, and names by what is printed."""
    pairs = [text.rpartition("=") for text in given]
    alone = [name for _, equals, name in pairs if not equals]
    if len(alone) > 1:
        allowed = "one name for all GPUs that no file names; PRINTED=NAME for others"
        refuse("command line", "--gpu", " and ".join(alone), allowed)
    return next(iter(alone), None), {p: name for p, equals, name in pairs if equals}


def _named(path: str | Path) -> tuple[str, Path]:
    """The node and the file of an argument, FILE or NODE=FILE."""
    text = str(path)
    node, equals, file = text.partition("=")
    if equals and node and "/" not in node and isinstance(path, str):
        try:
            whole = Path(text).exists()
        except (OSError, ValueError):
            whole = False
        if not whole:
            return node[:200], Path(file)
    return _node_name(Path(text))[:200], Path(text)


def _node_name(path: Path) -> str:
    """``gpu01.topo.txt`` is of gpu01; ``gpu01/topo.txt`` too; ``topo.txt`` of node."""
    for name in (path.name, path.parent.name):
        while (shorter := _ENDINGS.sub("", name)) != name:
            name = shorter
        clean = "".join(c for c in name if c.isprintable()).strip()
        if clean.lower() not in _NO_NAMES:
            return clean
    return "node"


def _read(path: Path, node: str) -> FileFacts:
    file = read_text(path, node)
    for fits, read in _READERS:
        if fits(file.text):
            return read(file)
    first = next((line for _, line in file.lines() if line.strip()), "")
    if first.startswith("apiVersion:"):
        file.refuse(1, "YAML of kubectl", "kubectl get nodes -o json")
    return file.refuse(
        1, shown(first) if first else "an empty file", f"one of {FORMATS}"
    )


def _one(read: Callable[[SourceText], NodeFacts]) -> Callable[[SourceText], FileFacts]:
    return lambda file: FileFacts(nodes=(read(file),))


_READERS: tuple[
    tuple[Callable[[str], bool], Callable[[SourceText], FileFacts]], ...
] = (
    (is_xml, _one(read_nccl)),
    (is_json, read_kubernetes),
    (is_rocm, _one(read_rocm)),
    (is_topo, _one(read_topo)),
    (is_slurm_yaml, read_slurm_yaml),
    (is_slurm, read_slurm),
    (is_gpu_list, _one(read_gpu_list)),
)


def _node_facts(read: list[FileFacts], others: bool) -> list[NodeFacts]:
    """Nodes of all files; those that only a network names where there are no other, or
    with ``others``."""
    facts = [node for file in read for node in file.nodes]
    if facts and not others:
        return facts
    known = {name for fact in facts for name in (fact.name, fact.name.split(".")[0])}
    found: dict[str, NodeFacts] = {}
    for fabric in (file.fabric for file in read if file.fabric):
        held = [s.nodes or () for s in fabric.switches]
        held += [r.nodes for r in fabric.racks]
        for name in (n for names in held for n in names):
            if name not in known:
                found.setdefault(name, NodeFacts(name, fabric.source, fabric.kind))
    return [*facts, *found.values()]


def _fabric(
    facts: list[FabricFacts], groups: list[Group]
) -> tuple[Fabric | None, dict[str, str], list[str]]:
    names = {group.name: [m.name for m in group.members] for group in groups}
    links = {}
    for group in groups:
        spec = catalogue.gpu(group.first.catalogue)
        product = product_of(group.first.catalogue)
        technology = (product and product.technology) or spec.link_technology
        for member in group.members:
            links[member.name] = (technology, spec.link_gbyte_per_s)
    return fabric_of(facts, names, links)


def _of_nodes(groups: list[Group]) -> list[str]:
    """Warnings of nodes; equal ones of one group are told once."""
    told = []
    for group in groups:
        for words in group.first.warnings:
            others = len(group.members) - 1
            more = f" (and {others} more nodes like it)" if others else ""
            told.append(f"{words}{more}")
        for member in group.members[1:]:
            first = {w.replace(group.first.name, "") for w in group.first.warnings}
            told += [w for w in member.warnings if _anonymous(w, member) not in
                     {_anonymous(f, group.first) for f in group.first.warnings}
                     and w not in first]  # fmt: skip
    return told


def _of_types(groups: list[Group]) -> list[str]:
    """What the links mean, and where no file prints them."""
    told = [note for group in groups for note in group.first.islands.notes]
    assumed = [
        g.name for g in groups if g.first.islands.groups is None and g.first.gpus > 1
    ]
    if assumed:
        told.append(
            f"no file prints the links of {assemble.few(assumed)}: islands and link "
            "speeds are the catalogue's"
        )
    return told


def _anonymous(warning: str, node: Finished) -> str:
    for source in node.node.sources:
        warning = warning.replace(source.rsplit(" (", 1)[0], "")
    return warning.replace(node.name, "")


def _document(
    groups: list[Group], fabric: Fabric | None, origins: Mapping[str, str]
) -> tuple[dict[str, Any], dict[tuple[str | int, ...], str]]:
    comments: dict[tuple[str | int, ...], str] = {}
    types: dict[str, Any] = {}
    for group in sorted(groups, key=lambda g: g.gpu):
        first = group.first
        types[group.gpu] = {"catalogue": first.catalogue, **dict(first.overrides)}
        words = [f"{field} of {first.comments[field]}" if field == "memory" else
                 first.comments[field] for field in ("memory", "link", "network")
                 if field in first.comments]  # fmt: skip
        if words:
            comments["gpu_types", group.gpu] = "; ".join(words)
    nodes = []
    for i, group in enumerate(groups):
        nodes.append(_group_document(group))
        told = {f: w for f, w in group.first.comments.items() if f in nodes[-1]}
        if len(group.members) > 1:
            for field in ("reserved", "failed"):
                reasons = [f"{m.name}: {m.comments[field]}" for m in group.members
                           if field in m.comments]  # fmt: skip
                if reasons and len({r.split(": ", 1)[1] for r in reasons}) > 1:
                    told[field] = "; ".join(reasons)
        comments |= {("nodes", i, field): words for field, words in told.items()}
    document: dict[str, Any] = {"gpu_types": types, "nodes": nodes}
    if fabric is not None:
        document["fabric"] = fabric.model_dump(mode="json", exclude_defaults=True)
        for field, origin in origins.items():
            if field in document["fabric"]:
                comments["fabric", field] = origin
    return document, comments


def _group_document(group: Group) -> dict[str, Any]:
    first, hosts = group.first, [m.name for m in group.members]
    document: dict[str, Any] = {
        "name": group.name,
        "gpu": group.gpu,
        "gpus": first.gpus,
    }
    if len(hosts) > 1:
        document["count"] = len(hosts)
        if hosts != [f"{group.name}-{i}" for i in range(len(hosts))]:
            document["hosts"] = hosts
    if first.islands.groups is not None:
        document["islands"] = [list(g) for g in first.islands.groups]
    for field in ("reserved", "failed"):
        if withheld := getattr(first, field):
            document[field] = list(withheld)
    if first.topology is not None:
        document["topology"] = first.topology.model_dump(
            mode="json", exclude_defaults=True
        )
    for field, attribute in (("gpu_uuids", "uuids"), ("pci_bus_ids", "bus_ids")):
        values = {
            m.name: list(v) for m in group.members if (v := getattr(m.node, attribute))
        }
        if values:
            document[field] = values
    return document


def _read_back(text: str) -> Cluster:
    """The cluster as an instance would get it from the file."""
    raw = {"cluster": parse(text.encode(), "import")}
    if errors := precheck(raw):
        raise InvalidInstance("import", errors)
    resolved, errors = resolve(raw, "import", Path())
    if errors:
        raise InvalidInstance("import", errors)
    return validate(Cluster, resolved["cluster"], "import", "cluster")
