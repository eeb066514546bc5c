"""A routed instance's file into its document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from shardwright.ingest.document import parse, read_file
from shardwright.ingest.refuse import nearest, one_of, shown
from shardwright.ingest.validate import validate
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.routed import RoutedInstance

MAX_BYTES = 32 * 10**6
MAX_VALUES = 2_000_000


def load_routed(path: str | Path) -> RoutedInstance:
    """The instance of a JSON or YAML file.

    Raises InvalidInstance, and nothing else, naming every refused field.
    """
    path = Path(path)
    return routed_of(read_file(path, MAX_BYTES), str(path))


def routed_of(data: bytes, source: str) -> RoutedInstance:
    """As ``load_routed``, for a file's bytes."""
    instance = validate(RoutedInstance, parse(data, source, MAX_VALUES), source)
    if errors := [*_node_errors(instance), *_link_errors(instance)]:
        raise InvalidInstance(source, errors)
    return instance


def routed_sha256(instance: RoutedInstance) -> str:
    """Hex digest of the instance in one spelling."""
    document = instance.model_dump(mode="json", by_alias=True)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _node_errors(instance: RoutedInstance) -> Iterator[FieldError]:
    types, seen = instance.throughput_by_layers, set[int]()
    for i, node in enumerate(instance.nodes):
        if node.type not in types:
            allowed = f"{nearest(node.type, types)}{one_of(types)}"
            yield FieldError(f"nodes.{i}.type", shown(node.type), allowed)
        if node.id in seen:
            yield FieldError(f"nodes.{i}.id", shown(node.id), "each id once")
        seen.add(node.id)
    for name, table in instance.stage_ms_by_layers.items():
        path = f"stage_ms_by_layers.{name}"
        if name not in types:
            yield FieldError(path, shown(name), one_of(types))
        elif len(table) != len(types[name]):
            yield FieldError(
                path, shown(table), f"{len(types[name])} entries, as in throughput"
            )


def _link_errors(instance: RoutedInstance) -> Iterator[FieldError]:
    ids = {node.id for node in instance.nodes}
    seen: set[tuple[int | str, int | str]] = set()
    for i, link in enumerate(instance.links):
        ends = (link.source, link.target)
        if link.source not in ids and link.source != "source":
            allowed = "a node's id or 'source'"
            yield FieldError(f"links.{i}.from", shown(link.source), allowed)
        if link.target not in ids and link.target != "sink":
            allowed = "a node's id or 'sink'"
            yield FieldError(f"links.{i}.to", shown(link.target), allowed)
        if link.source == link.target or ends == ("source", "sink"):
            yield FieldError(f"links.{i}", shown(ends), "a link between two nodes, or "
                             "a node and the coordinator")  # fmt: skip
        if ends in seen:
            yield FieldError(f"links.{i}", shown(ends), "each link once")
        seen.add(ends)
