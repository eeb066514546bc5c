"""Rules of the raw cluster that must hold before its documents are built.

The schema has the same rules for its Python callers, told at the cluster; here
each is told at the field that breaks it.
"""

from __future__ import annotations

import re
from typing import Any

from shardwright.ingest.refuse import nearest, one_of, shown
from shardwright.schema.cluster import MAX_GPUS
from shardwright.schema.errors import FieldError


def precheck(raw: dict[str, Any]) -> list[FieldError]:
    """Errors of counts, GPU names and node names of the cluster, if it has any."""
    cluster = raw.get("cluster")
    nodes = cluster.get("nodes") if isinstance(cluster, dict) else None
    if not isinstance(cluster, dict) or not isinstance(nodes, list):
        return []
    groups = {i: group for i, group in enumerate(nodes) if isinstance(group, dict)}
    errors = _too_many(groups) + _repeated_names(groups) + _missing_gpus(groups)
    if isinstance(cluster.get("gpu_types"), dict) and cluster["gpu_types"]:
        errors += _unknown_types(groups, list(cluster["gpu_types"]))
    return errors


def _number(group: dict[str, Any], name: str) -> int:
    value = group.get(name, 1)
    return value if type(value) is int and value > 0 else 1


def _too_many(groups: dict[int, dict[str, Any]]) -> list[FieldError]:
    total = sum(_number(g, "count") * _number(g, "gpus") for g in groups.values())
    if total <= MAX_GPUS:
        return []
    allowed = f"at most {MAX_GPUS} GPUs (count times gpus over all nodes)"
    return [FieldError("cluster.nodes", f"{total} GPUs", allowed)]


def _unknown_types(
    groups: dict[int, dict[str, Any]], types: list[str]
) -> list[FieldError]:
    return [
        FieldError(
            f"cluster.nodes.{i}.gpu",
            shown(group["gpu"]),
            f"{nearest(group['gpu'], types)}{one_of(types)} (cluster.gpu_types)",
        )
        for i, group in groups.items()
        if isinstance(group.get("gpu"), str) and group["gpu"] not in types
    ]


def _repeated_names(groups: dict[int, dict[str, Any]]) -> list[FieldError]:
    """Groups are distinct, and so are the nodes that they stand for: a single node
    ``a-0`` beside two nodes ``a`` would be there twice."""
    first: dict[str, int] = {}
    counts: dict[str, int] = {}
    errors = []
    for i, group in groups.items():
        name = group.get("name")
        if not isinstance(name, str):
            continue
        if name in first:
            errors.append(_repeated(i, name, first[name]))
        first.setdefault(name, i)
        # hosts are named one by one
        counts[name] = 1 if group.get("hosts") else _number(group, "count")
    for name, i in first.items():
        match = re.fullmatch(r"(.*)-(0|[1-9][0-9]{0,8})", name, re.DOTALL)
        if match and counts[name] == 1 and match[1] in first:
            size = counts[match[1]]
            if size > 1 and int(match[2]) < size:
                errors.append(_repeated(i, name, first[match[1]]))
    return errors


def _repeated(i: int, name: str, other: int) -> FieldError:
    allowed = f"a name that cluster.nodes.{other} does not give to a node"
    return FieldError(f"cluster.nodes.{i}.name", shown(name), allowed)


def _missing_gpus(groups: dict[int, dict[str, Any]]) -> list[FieldError]:
    errors = []
    for i, group in groups.items():
        gpus = group.get("gpus")
        for field in ("reserved", "failed"):
            listed = group.get(field)
            if type(gpus) is not int or not isinstance(listed, list):
                continue
            errors += [
                FieldError(f"cluster.nodes.{i}.{field}.{k}", shown(g),
                           f"a GPU of this node, 0 to {gpus - 1}")
                for k, g in enumerate(listed) if type(g) is int and g >= gpus
            ]  # fmt: skip
    return errors
