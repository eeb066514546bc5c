"""Instances without some of their GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Literal

from shardwright.schema.cluster import NodeGroup
from shardwright.schema.instance import Instance

GpuName = tuple[str, int]
"""Node and index."""

Mark = Literal["failed", "reserved"]


def without_gpus(
    instance: Instance, lost: Iterable[GpuName], mark: Mark = "failed"
) -> Instance:
    """The instance with GPUs marked; groups are split where their nodes now differ.

    Raises KeyError with the node's name for a node that the cluster does not have.
    """
    by_node: dict[str, set[int]] = {}
    for node, gpu in lost:
        by_node.setdefault(node, set()).add(gpu)
    known = {n for group in instance.cluster.nodes for n in group.node_names()}
    for node in by_node:
        if node not in known:
            raise KeyError(node)
    groups = tuple(
        part
        for group in instance.cluster.nodes
        for part in _split(group, by_node, mark)
    )
    cluster = instance.cluster.model_copy(update={"nodes": groups})
    return instance.model_copy(update={"cluster": cluster})


def _split(
    group: NodeGroup, by_node: dict[str, set[int]], mark: Mark
) -> Iterator[NodeGroup]:
    names = group.node_names()
    if not any(name in by_node for name in names):
        yield group
        return
    for lost, run in groupby(names, key=lambda n: tuple(sorted(by_node.get(n, ())))):
        hosts = tuple(run)
        marked = tuple(sorted({*getattr(group, mark), *lost}))
        yield group.model_copy(
            update={
                "name": hosts[0],
                "count": len(hosts),
                "hosts": hosts,
                "gpu_uuids": _of(group.gpu_uuids, hosts),
                "pci_bus_ids": _of(group.pci_bus_ids, hosts),
                mark: marked,
            }
        )


def _of(
    listed: dict[str, tuple[str, ...]] | None, hosts: tuple[str, ...]
) -> dict[str, tuple[str, ...]] | None:
    return listed and {host: listed[host] for host in hosts if host in listed}
