"""The catalogue of LLMs, GPU types and calibrations: the files of ``models/``."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from shardwright.ingest.document import parse, read_file
from shardwright.ingest.huggingface import read_config
from shardwright.ingest.refuse import nearest, refuse, shown
from shardwright.ingest.validate import validate
from shardwright.schema.cluster import Calibration, GpuSpec
from shardwright.schema.model import ModelSpec

KINDS = {
    "llm": ("llm", ".json", "a model"),
    "gpu": ("gpu", ".yaml", "a GPU type"),
    "calibration": ("calibration", ".yaml", "a calibration"),
}

SHARED = ("engines", "intervals", "serving")
"""Files beside the calibrations that hold for every GPU type."""


@cache
def root() -> Path:
    """The folder of the catalogue: in the wheel, or ``models/`` of the checkout."""
    installed = Path(str(resources.files("shardwright"))) / "_catalogue"
    if installed.is_dir():
        return installed
    return Path(__file__).resolve().parents[3] / "models"


@cache
def names(kind: str) -> tuple[str, ...]:
    """Sorted names of one kind: ``llm``, ``gpu`` or ``calibration``."""
    folder, suffix, _ = KINDS[kind]
    found = (root() / folder).glob(f"*{suffix}")
    entries = {p.name.removesuffix(suffix) for p in found}
    return tuple(sorted(entries - set(SHARED if kind == "calibration" else ())))


def model(name: str, path: str = "model", source: str = "the catalogue") -> ModelSpec:
    """The model of this name, as ``ORG/NAME`` or ``ORG--NAME``.

    ``path`` and ``source`` say in an error who asked. Raises InvalidInstance.
    """
    return _model(_known("llm", name, path, source))


def gpu(name: str, path: str = "catalogue", source: str = "the catalogue") -> GpuSpec:
    """The GPU type of this name with its calibration. Raises InvalidInstance."""
    return _gpu(_known("gpu", name, path, source))


def calibration(
    name: str, path: str = "calibration", source: str = "the catalogue"
) -> Calibration:
    """The calibration of this name. Raises InvalidInstance."""
    return _calibration(_known("calibration", name, path, source))


@cache
def shared(name: str) -> dict[str, Any]:
    """A file of ``SHARED``; nothing where the catalogue has none."""
    present = (root() / "calibration" / f"{name}.yaml").is_file()
    return _document("calibration", name) if present else {}


def _known(kind: str, name: str, path: str, source: str) -> str:
    known = names(kind)
    wanted = name.replace("/", "--")
    if wanted not in known:
        hint = nearest(wanted, known).replace("--", "/")
        refuse(source, path, shown(name), f"{hint}{_listed(kind, known)}")
    return wanted


def _listed(kind: str, known: tuple[str, ...]) -> str:
    entry = f"{KINDS[kind][2]} of the catalogue"
    if len(known) > 30:
        return f"{entry} (one of {len(known)})"
    return f"{entry}: {', '.join(known).replace('--', '/')}"


def _document(kind: str, name: str) -> dict[str, Any]:
    folder, suffix, _ = KINDS[kind]
    relative = f"{folder}/{name}{suffix}"
    return parse(read_file(root() / relative), f"catalogue {relative}")


@cache
def _model(name: str) -> ModelSpec:
    raw = _document("llm", name)
    return read_config(raw, name.replace("--", "/", 1), f"catalogue llm/{name}.json")


@cache
def _gpu(name: str) -> GpuSpec:
    source = f"catalogue gpu/{name}.yaml"
    raw = _document("gpu", name)
    used = calibration(str(raw.get("calibration")), "calibration", source)
    raw["calibration"] = json.loads(used.model_dump_json(by_alias=True))
    return validate(GpuSpec, raw, source)


@cache
def _calibration(name: str) -> Calibration:
    raw = _document("calibration", name)
    if "engines" not in raw:
        raw["engines"] = shared("engines").get("engines", {})
    return validate(Calibration, raw, f"catalogue calibration/{name}.yaml")
