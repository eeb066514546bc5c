"""The points of a sweep as instances: fields set by their path, then read strictly."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardwright._version import __version__
from shardwright.ingest import instance_sha256
from shardwright.ingest.document import parse, read_file
from shardwright.ingest.load import canonical_json, load_bytes
from shardwright.ingest.references import resolve, with_cluster
from shardwright.ingest.refuse import refuse, shown
from shardwright.ingest.validate import validate
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.instance import Instance
from shardwright.schema.sweep import TIME_LIMIT, Changes, SweepFile

_LARGEST_SECONDS = 1e9


@dataclass(frozen=True)
class Task:
    """A point that can be solved anywhere: its instance is complete in ``text``.

    ``key`` names all that its outcome depends on; points of one key are the same.
    """

    text: str
    sha256: str
    time_limit_s: float
    gap: float
    threads: int
    seed: int
    explain: bool = False

    @property
    def key(self) -> str:
        """Hex digest of the instance, the options and the version."""
        effort = (self.time_limit_s, self.gap, self.threads, self.seed)
        options = (*effort, self.explain, __version__)
        return hashlib.sha256(f"{self.sha256}|{options}".encode()).hexdigest()


@dataclass(frozen=True)
class Point:
    """What changes at one point, and its task; or why there is none."""

    index: int
    changes: Changes
    task: Task | None
    refused: InvalidInstance | None = None


@dataclass(frozen=True)
class Source:
    """A sweep and the document that its points start from."""

    file: SweepFile
    base: dict[str, Any]
    folder: Path

    def points(self) -> Iterator[Point]:
        """Every point in order, the last name of ``vary`` changing fastest."""
        names = [*self.file.vary]
        grid = [*itertools.product(*self.file.vary.values())]
        pairs = itertools.product(self.file.points, grid)
        for index, (listed, values) in enumerate(pairs):
            changes = {**listed, **dict(zip(names, values, strict=True))}
            try:
                yield Point(index, changes, self._task(changes))
            except InvalidInstance as refused:
                yield Point(index, changes, None, refused)

    def _task(self, changes: Changes) -> Task:
        seconds = changes.get(TIME_LIMIT, self.file.time_limit_s)
        if not isinstance(seconds, int | float) or not 0 < seconds <= _LARGEST_SECONDS:
            refuse("point", TIME_LIMIT, shown(seconds), "seconds above 0")
        fields = {path: v for path, v in changes.items() if path != TIME_LIMIT}
        instance = self._instance(fields)
        return Task(
            canonical_json(instance),
            instance_sha256(instance),
            float(seconds),
            self.file.gap,
            self.file.threads,
            self.file.seed,
            self.file.explain,
        )

    def _instance(self, changes: Changes) -> Instance:
        raw = self.base
        if self.file.objective is not None:
            raw = {**raw, "objective": [*self.file.objective]}
        for path, value in changes.items():
            raw = with_value(raw, path, value)
        return load_bytes(json.dumps(raw).encode(), "point.json", self.folder)


def read_sweep(
    source: str | Path | Mapping[str, Any] | SweepFile,
    instance: Instance | None = None,
) -> Source:
    """The sweep of a file, or of what a file would have; paths start at its folder.

    ``instance`` stands for the one that the sweep would name. Raises InvalidInstance.
    """
    file, folder, name = _file(source)
    if (file.instance is None) == (instance is None):
        found = "nothing" if file.instance is None else shown(file.instance)
        refuse(name, "instance", found, "one instance is needed")
    if instance is not None:
        return Source(file, json.loads(canonical_json(instance)), folder)
    path = folder / str(file.instance)
    base = parse(read_file(path), str(path))
    return Source(file, _opened(base, file, path), path.parent)


def _file(
    source: str | Path | Mapping[str, Any] | SweepFile,
) -> tuple[SweepFile, Path, str]:
    if isinstance(source, SweepFile):
        return source, Path(), "sweep"
    if isinstance(source, Mapping):
        return validate(SweepFile, dict(source), "sweep"), Path(), "sweep"
    path = Path(source)
    raw = parse(read_file(path), str(path))
    return validate(SweepFile, raw, str(path)), path.parent, str(path)


def _opened(base: dict[str, Any], file: SweepFile, path: Path) -> dict[str, Any]:
    """References that the sweep reaches into are written out."""
    fields = file.fields()
    if any(field.startswith("cluster.") for field in fields):
        base, errors = with_cluster(base, path.parent)
        if errors:
            raise InvalidInstance(str(path), errors)
    if any(field.startswith("model.") for field in fields):
        resolved, errors = resolve(base, str(path), path.parent)
        if wrong := [e for e in errors if e.path.startswith("model")]:
            raise InvalidInstance(str(path), wrong)
        base = {**base, "model": resolved["model"]}
    return base


def with_value(raw: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a document with one field set; missing mappings are made.

    Raises InvalidInstance naming how far the path leads.
    """
    changed: dict[str, Any] = _set(raw, path.split("."), value, path)
    return changed


def _set(node: Any, steps: list[str], value: Any, path: str) -> Any:
    if not steps:
        return value
    at = ".".join(path.split(".")[: -len(steps)]) or "(document)"
    step, rest = steps[0], steps[1:]
    if node is None or isinstance(node, dict):
        inside = node or {}
        if not rest and value is None:
            return {key: item for key, item in inside.items() if key != step}
        return {**inside, step: _set(inside.get(step), rest, value, path)}
    if isinstance(node, list):
        place = _place(node, step, at)
        return [*node[:place], _set(node[place], rest, value, path), *node[place + 1 :]]
    error = FieldError(at, shown(node), f"{path} leads into it: a mapping or a list")
    raise InvalidInstance("point", [error])


def _place(node: list[Any], step: str, at: str) -> int:
    if step.isascii() and step.isdigit() and len(step) < 8 and int(step) < len(node):
        return int(step)
    allowed = f"an entry from 0 to {len(node) - 1}" if node else "an entry; it is empty"
    raise InvalidInstance("point", [FieldError(f"{at}.{step}", repr(step), allowed)])
