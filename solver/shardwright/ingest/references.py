"""References of an instance file into the catalogue or to files beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shardwright.ingest import catalogue
from shardwright.ingest.document import parse, read_file
from shardwright.ingest.huggingface import read_config
from shardwright.ingest.refuse import shown
from shardwright.ingest.validate import attempt
from shardwright.schema.base import Document
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.instance import GpuReference
from shardwright.schema.model import ModelSpec

STAND_IN_MODEL = "meta-llama--Meta-Llama-3-70B-Instruct"
STAND_IN_GPU = "H100-SXM"
"""Stand for a reference that was refused, so that the rest of the file is still
read and all its errors come at once; no instance is built from them."""


def resolve(
    raw: dict[str, Any], source: str, folder: Path
) -> tuple[dict[str, Any], list[FieldError]]:
    """The document with models and GPU types written out, and what was refused."""
    errors: list[FieldError] = []
    resolved = dict(raw)
    if "model" in raw and not isinstance(raw["model"], dict):
        resolved["model"] = _model(raw["model"], folder, errors)
    cluster = raw.get("cluster")
    types = cluster.get("gpu_types") if isinstance(cluster, dict) else None
    if isinstance(cluster, dict) and isinstance(types, dict):
        written_out = {
            name: _gpu(value, f"cluster.gpu_types.{name}", source, errors)
            for name, value in types.items()
        }
        resolved["cluster"] = {**cluster, "gpu_types": written_out}
    workload = raw.get("workload")
    if isinstance(workload, dict) and isinstance(workload.get("expert_loads"), str):
        table = _expert_loads(workload["expert_loads"], folder, errors)
        resolved["workload"] = {**workload, "expert_loads": table}
    return resolved, errors


def with_cluster(
    raw: dict[str, Any], folder: Path
) -> tuple[dict[str, Any], list[FieldError]]:
    """The document with the cluster of the file that ``cluster`` names in its place."""
    named = raw.get("cluster")
    if not isinstance(named, str):
        return raw, []
    path = folder / named
    try:
        return {**raw, "cluster": parse(read_file(path), str(path))}, []
    except InvalidInstance as refused:
        beside = f"{refused.source}: "
        return raw, [_inside("cluster", beside, error) for error in refused.errors]


def _expert_loads(text: str, folder: Path, errors: list[FieldError]) -> Any:
    """A JSON file beside the instance: rows of tokens, or an object that has them."""
    at = "workload.expert_loads"
    try:
        raw = parse(read_file(folder / text), text)
    except InvalidInstance as refused:
        errors += [_inside(at, f"{refused.source}: ", e) for e in refused.errors]
        return None
    for key in ("tokens", "load", "logical_count"):
        if isinstance(raw, dict) and key in raw:
            return {"tokens": raw[key]}
    errors.append(
        FieldError(at, shown(raw), "an object with the rows under 'tokens' is needed")
    )
    return None


def plain(document: Document) -> Any:
    """The document as a file would have it."""
    return json.loads(document.model_dump_json(by_alias=True))


def _model(value: Any, folder: Path, errors: list[FieldError]) -> Any:
    stand_in = plain(catalogue.model(STAND_IN_MODEL))
    if not isinstance(value, str):
        allowed = "a catalogue name, the path of a config.json, or a mapping"
        errors.append(FieldError("model", shown(value), allowed))
        return stand_in
    try:
        spec = _config(value, folder) if is_path(value) else catalogue.model(value)
        return plain(spec)
    except InvalidInstance as refused:
        beside = f"{refused.source}: " if is_path(value) else ""
        errors += [_inside("model", beside, error) for error in refused.errors]
        return stand_in


def is_path(text: str) -> bool:
    """Whether ``model`` names a file or folder rather than a catalogue entry."""
    return text.endswith(".json") or text.startswith((".", "/"))


def _config(text: str, folder: Path) -> ModelSpec:
    path = _file(folder / text)
    raw = parse(read_file(path), str(path))
    name = path.resolve().parent.name if path.name == "config.json" else path.stem
    spec = read_config(raw, (name or "model")[:200].replace("--", "/", 1), str(path))
    # where the file lies is no part of the instance, nor of its hash
    return spec.model_copy(update={"source": path.name})


def _file(path: Path) -> Path:
    """The file itself, or the config.json of a folder."""
    try:
        return path / "config.json" if path.is_dir() else path
    except OSError:
        # a name too long for the system; reading it will say so
        return path


def _inside(at: str, beside: str, error: FieldError) -> FieldError:
    """An error of a referenced file, told from the file that refers to it."""
    if error.path == at:
        return error
    place = "" if error.path.startswith("(") else f"{error.path} is "
    return FieldError(at, f"{beside}{place}{error.found}", error.allowed)


def _gpu(value: Any, at: str, source: str, errors: list[FieldError]) -> Any:
    if isinstance(value, dict) and "catalogue" not in value:
        return value
    if not isinstance(value, dict):
        allowed = "a mapping, such as {catalogue: H100-SXM}"
        errors.append(FieldError(at, shown(value), allowed))
        return plain(catalogue.gpu(STAND_IN_GPU))
    reference, refused = attempt(GpuReference, value, at)
    errors += refused
    if reference is None:
        return plain(catalogue.gpu(STAND_IN_GPU))
    try:
        return plain(_overridden(reference, at, source))
    except InvalidInstance as unknown:
        errors += unknown.errors
        return plain(catalogue.gpu(STAND_IN_GPU))


def _overridden(reference: GpuReference, at: str, source: str) -> GpuSpec:
    spec = catalogue.gpu(reference.catalogue, f"{at}.catalogue", source)
    update = {
        name: getattr(reference, name)
        for name in GpuReference.model_fields
        if name not in ("catalogue", "calibration")
        and getattr(reference, name) is not None
    }
    if reference.calibration is not None:
        update["calibration"] = catalogue.calibration(
            reference.calibration, f"{at}.calibration", source
        )
    return spec.model_copy(update=update)
