"""Reading expert loads and maps: load tables, plain arrays, histories, recorder dumps.

A load table is float64 [L, E], tokens routed to each expert; several make scenarios
[K, L, E]. Everything that is not such a table raises ValueError, which names the
field, what was found and what is allowed.

Accepted: {"load": [[...]]} with optional name, num_layers, num_experts, configs; a
bare array in JSON, CSV (one layer a line) or .npy; {"load_history":
[{"logical_expert_load": [[...]]}]} (summed); {"logical_count": ...} as SGLang's
recorder dumps it, [L, E] or [steps, L, E]; vLLM's {"expert_load_pass"} or
{"expert_load_window"}, on physical slots, with {"physical_to_logical_map"}; the
same names as arrays of an .npz file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .replicate import Floats, Ints

_MOST_CELLS = 50_000_000
_PHYSICAL = ("physical_count", "expert_load_pass", "expert_load_window")


@dataclass(frozen=True)
class LoadTable:
    """Tokens per layer and expert [L, E], with the file's name and its configs."""

    load: Floats
    name: str = ""
    configs: tuple[Mapping[str, Any], ...] = field(default=())


def read_loads(path: Path | str) -> LoadTable:
    """The load table in a file, by its suffix: .json, .csv, .npy or .npz."""
    path = Path(path)
    name = path.stem
    if path.suffix == ".npy":
        return LoadTable(load_array(_numpy(path), "array"), name)
    if path.suffix == ".npz":
        return parse_loads(_archive(path), name)
    if path.suffix == ".csv":
        return LoadTable(load_array(_csv(path), "csv"), name)
    if path.suffix == ".json":
        return parse_loads(read_json(path), name)
    raise ValueError(
        f"file: found suffix {path.suffix!r}, allowed .json, .csv, .npy, .npz"
    )


def parse_loads(document: Any, name: str = "") -> LoadTable:
    """The load table in a JSON document or in the named arrays of an archive."""
    if not isinstance(document, Mapping):
        return LoadTable(load_array(document, "$"), name)
    if "load" in document:
        return _native(document, name)
    if "load_history" in document:
        return LoadTable(_history(document["load_history"]), name)
    if "logical_count" in document:
        return LoadTable(load_array(document["logical_count"], "logical_count"), name)
    for key in _PHYSICAL:
        if key in document:
            return LoadTable(_from_physical(document, key), name)
    raise ValueError(
        f"$: found keys {sorted(map(str, document))}, allowed one of load, "
        f"load_history, logical_count, {', '.join(_PHYSICAL)}"
    )


def read_map(path: Path | str) -> Ints:
    """A physical_to_logical_map [L, P] from JSON (bare or under that key) or .npy."""
    path = Path(path)
    document = _numpy(path) if path.suffix == ".npy" else read_json(path)
    if isinstance(document, Mapping):
        if "physical_to_logical_map" not in document:
            raise ValueError(
                f"$: found keys {sorted(map(str, document))}, "
                "allowed physical_to_logical_map"
            )
        document = document["physical_to_logical_map"]
    return map_array(document, "physical_to_logical_map")


def read_json(path: Path) -> Any:
    """JSON without NaN, infinity or duplicate keys."""
    try:
        return json.loads(
            path.read_text(encoding="utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
        )
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"$: found no JSON ({error}), allowed a JSON file") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise ValueError(f"{key}: found twice, allowed once")
        out[key] = value
    return out


def _no_constant(text: str) -> Any:
    raise ValueError(f"$: found {text}, allowed finite numbers")


def load_array(value: Any, where: str) -> Floats:
    """Finite numbers >= 0, [L, E]; [steps, L, E] is summed over steps."""
    array = _numbers(value, where)
    if array.ndim == 3:
        array = array.sum(axis=0)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{where}: found shape {array.shape}, allowed layers x experts"
        )
    return array


def map_array(value: Any, where: str) -> Ints:
    """A map [L, P] of whole expert numbers >= 0."""
    array = _numbers(value, where)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{where}: found shape {array.shape}, allowed layers x slots")
    bad = (array != np.floor(array)) | (array >= _MOST_CELLS)
    if bad.any():
        spot = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{where}{_path(spot)}: found {array[spot]}, allowed whole expert numbers"
        )
    return array.astype(np.int64)


def _numbers(value: Any, where: str) -> Floats:
    """Finite float64 >= 0 of any shape; the first bad cell is named."""
    if not isinstance(value, np.ndarray):
        _check_nested(value, where)
    try:
        raw = np.asarray(value)
    except ValueError:
        raise ValueError(f"{where}: found rows of different lengths") from None
    if raw.dtype.kind not in "iuf":
        raise ValueError(f"{where}: found {raw.dtype} values, allowed numbers")
    if raw.size > _MOST_CELLS:
        raise ValueError(f"{where}: found {raw.size} cells, allowed {_MOST_CELLS}")
    array = raw.astype(np.float64)
    bad = ~np.isfinite(array) | (array < 0)
    if bad.any():
        spot = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{where}{_path(spot)}: found {array[spot]}, allowed finite numbers >= 0"
        )
    return array


def _check_nested(value: Any, where: str, depth: int = 0) -> None:
    """Lists of lists of numbers only; True and texts are refused with their place."""
    if isinstance(value, list):
        if depth == 3:
            raise ValueError(f"{where}: found lists four deep, allowed at most three")
        lengths = {len(item) if isinstance(item, list) else -1 for item in value}
        if len(lengths) > 1:
            raise ValueError(
                f"{where}: found rows of lengths {sorted(lengths)}, allowed one length"
            )
        for i, item in enumerate(value):
            _check_nested(item, f"{where}[{i}]", depth + 1)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where}: found {value!r}, allowed a number")


def _path(spot: tuple[int, ...]) -> str:
    return "".join(f"[{i}]" for i in spot)


def _native(document: Mapping[str, Any], name: str) -> LoadTable:
    load = load_array(document["load"], "load")
    for key, size in zip(("num_layers", "num_experts"), load.shape, strict=True):
        if key in document and document[key] != size:
            raise ValueError(f"{key}: found {document[key]!r}, allowed {size} (load)")
    configs = document.get("configs", [])
    if not isinstance(configs, list) or not all(
        isinstance(config, Mapping) for config in configs
    ):
        raise ValueError(f"configs: found {configs!r}, allowed a list of objects")
    title = document.get("name", name)
    if not isinstance(title, str):
        raise ValueError(f"name: found {title!r}, allowed a text")
    return LoadTable(load, title, tuple(configs))


def _history(history: Any) -> Floats:
    """Sum of the steps' logical_expert_load tables."""
    if not isinstance(history, list) or not history:
        raise ValueError("load_history: found no steps, allowed a list of objects")
    total: Floats | None = None
    for i, step in enumerate(history):
        where = f"load_history[{i}]"
        if not isinstance(step, Mapping) or "logical_expert_load" not in step:
            raise ValueError(f"{where}: found no logical_expert_load, allowed one")
        table = load_array(step["logical_expert_load"], f"{where}.logical_expert_load")
        if total is not None and table.shape != total.shape:
            raise ValueError(
                f"{where}: found shape {table.shape}, allowed {total.shape}"
            )
        total = table if total is None else total + table
    assert total is not None
    return total


def _from_physical(document: Mapping[str, Any], key: str) -> Floats:
    """Slot counts folded onto the experts that the slots hold."""
    count = load_array(document[key], key)
    if "physical_to_logical_map" not in document:
        raise ValueError(
            f"physical_to_logical_map: found nothing, allowed a map beside {key}"
        )
    where = "physical_to_logical_map"
    maps = map_array(document[where], where)
    if maps.shape != count.shape:
        raise ValueError(f"{where}: found shape {maps.shape}, allowed {count.shape}")
    experts = int(maps.max()) + 1
    if experts > maps.shape[1]:
        raise ValueError(
            f"{where}: found expert {experts - 1}, allowed 0 to {maps.shape[1] - 1}"
        )
    out = np.zeros((maps.shape[0], experts))
    np.add.at(out, (np.arange(maps.shape[0])[:, None], maps), count)
    return out


def _numpy(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"array: found no plain .npy array ({error})") from None


def _archive(path: Path) -> dict[str, Any]:
    found = _numpy(path)
    if not isinstance(found, np.lib.npyio.NpzFile):
        raise ValueError("archive: found no .npz file, allowed named plain arrays")
    with found as archive:
        try:
            return {key: archive[key] for key in archive.files}
        except ValueError as error:
            raise ValueError(f"archive: found pickled data ({error})") from None


def _csv(path: Path) -> list[list[float]]:
    """Rows of numbers; one header line is passed over."""
    try:
        lines = [row for row in csv.reader(path.read_text("utf-8").splitlines()) if row]
    except UnicodeDecodeError as error:
        raise ValueError(f"csv: found no text ({error})") from None
    out = []
    for i, row in enumerate(lines):
        try:
            out.append([float(cell) for cell in row])
        except ValueError:
            if i:
                raise ValueError(f"csv[{i}]: found {row}, allowed numbers") from None
    return out
