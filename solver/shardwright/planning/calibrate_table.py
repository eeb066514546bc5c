"""A CSV of operator measurements into tables, one per curve; every refusal by row.

Layout: a header, then one measurement per line. ``op``, ``dtype`` and ``latency_us``
are in every row, ``variant`` and ``gpu`` may be; the other columns are those of the
operator (docs/calibration.md), and what an operator does not use stays empty.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from shardwright.cost.operator_shapes import COLUMNS
from shardwright.planning.calibrate_routing import busiest_rank
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.operators import OperatorDtype, OperatorFamily

FloatArray = NDArray[np.float64]

HEAD = ("op", "dtype", "variant", "latency_us")
TEXTS = ("routing", "gpu")
MOST_ERRORS = 20
MAX_ROWS = 1_000_000
MAX_BYTES = 200 * 10**6
LARGEST = 1e12
MOST_TOKENS, MOST_EXPERTS = 10**7, 4096

_FAMILIES: dict[str, OperatorFamily] = {f: f for f in get_args(OperatorFamily)}
_DTYPES: dict[str, OperatorDtype] = {d: d for d in get_args(OperatorDtype)}


@dataclass(frozen=True)
class Key:
    """What one curve is fitted to."""

    family: OperatorFamily
    variant: str
    dtype: OperatorDtype

    def __str__(self) -> str:
        return " ".join(
            part for part in (self.family, self.variant, self.dtype) if part
        )


@dataclass(frozen=True)
class Table:
    """Measurements of one curve: columns of equal length, times in us.

    ``lines`` are the rows' numbers in the file, the header being line 1.
    """

    key: Key
    columns: dict[str, FloatArray]
    measured_us: FloatArray
    lines: tuple[int, ...]


@dataclass(frozen=True)
class _Row:
    line: int
    key: Key
    values: dict[str, float]
    latency_us: float
    routing: str


def read_tables(path: Path, gpu: str | None = None) -> list[Table]:
    """The tables of a CSV file (plain or .gz), in order of first appearance.

    ``gpu``: where the file has a ``gpu`` column, only the rows of this one. Raises
    InvalidInstance naming row and field of what it cannot use (the first 20).
    """
    return parse_tables(_text(path), str(path), gpu)


def parse_tables(text: str, source: str, gpu: str | None = None) -> list[Table]:
    """As ``read_tables``, for the text of a file."""
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header, source)
        rows = _rows(reader, header, source, gpu)
    except csv.Error as error:
        line = f"line {reader.line_num}"
        raise InvalidInstance(source, [FieldError(line, str(error), "CSV")]) from None
    if not rows:
        wanted = f" of gpu {gpu}" if gpu and "gpu" in header else ""
        raise InvalidInstance(
            source, [FieldError("rows", "none", f"measurements{wanted}")]
        )
    return _grouped(rows)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            with gzip.open(io.BytesIO(data)) as stream:
                data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InvalidInstance(str(path), [
                FieldError("(file)", "too much text", f"at most {MAX_BYTES} bytes")
            ])  # fmt: skip
        return data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        found = getattr(error, "strerror", None) or str(error)
        raise InvalidInstance(
            str(path), [FieldError("(file)", found, "a CSV file")]
        ) from None
    except UnicodeDecodeError:
        raise InvalidInstance(
            str(path), [FieldError("(file)", "bytes that are no text", "UTF-8")]
        ) from None


def _check_header(header: list[str], source: str) -> None:
    known = {*HEAD, *TEXTS, *(name for names in COLUMNS.values() for name in names)}
    errors = [
        FieldError(f"header.{name}", "nothing", "this column is required")
        for name in ("op", "dtype", "latency_us")
        if name not in header
    ]
    errors += [
        FieldError(f"header.{name or '(empty)'}", "an unknown column",
                   f"one of {', '.join(sorted(known))}")
        for name in header
        if name not in known
    ]  # fmt: skip
    errors += [
        FieldError(f"header.{name}", "twice", "every column once")
        for name in sorted({n for n in header if header.count(n) > 1})
    ]
    if errors:
        raise InvalidInstance(source, errors)


def _rows(
    reader: Iterable[list[str]], header: list[str], source: str, gpu: str | None
) -> list[_Row]:
    rows: list[_Row] = []
    errors: list[FieldError] = []
    for line, cells in enumerate(reader, start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(rows) >= MAX_ROWS:
            errors.append(FieldError(f"row {line}", "another row", f"{MAX_ROWS} rows"))
        elif len(cells) != len(header):
            found = f"{len(cells)} fields"
            errors.append(FieldError(f"row {line}", found, f"{len(header)} fields"))
        else:
            fields = dict(zip(header, (c.strip() for c in cells), strict=True))
            if gpu is None or fields.get("gpu", gpu) == gpu:
                _read_row(line, fields, rows, errors)
        if len(errors) >= MOST_ERRORS:
            break
    if errors:
        raise InvalidInstance(source, errors)
    return rows


def _read_row(
    line: int, fields: dict[str, str], rows: list[_Row], errors: list[FieldError]
) -> None:
    """Append the row, or why it is refused."""
    family = _FAMILIES.get(fields["op"])
    dtype = _DTYPES.get({"fp16": "bf16"}.get(fields["dtype"], fields["dtype"]))
    before = len(errors)
    if family is None:
        errors.append(_field(line, "op", fields["op"], _one_of(_FAMILIES)))
    if dtype is None:
        errors.append(_field(line, "dtype", fields["dtype"], _one_of(_DTYPES)))
    latency = _number(line, "latency_us", fields["latency_us"], errors)
    if family is None or dtype is None:
        return
    values = _values(line, family, fields, errors)
    variant = fields.get("variant", "") or _default_variant(family)
    routing = fields.get("routing", "") or "uniform"
    if len(errors) == before:
        _check_row(line, family, variant, routing, values, errors)
    if len(errors) == before:
        key = Key(family, variant, dtype)
        rows.append(_Row(line, key, values, latency, routing))


def _default_variant(family: OperatorFamily) -> str:
    if family in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
        return "nccl"
    if family.startswith("mla"):
        return "kv_bf16"
    return "deepep" if family.startswith("expert") else ""


def _values(
    line: int, family: OperatorFamily, fields: dict[str, str], errors: list[FieldError]
) -> dict[str, float]:
    values = {}
    for name, default in COLUMNS[family].items():
        text = fields.get(name, "")
        if text or default is None:
            values[name] = _number(line, name, text, errors)
        else:
            values[name] = default
    return values


def _number(line: int, name: str, text: str, errors: list[FieldError]) -> float:
    """A size (a whole number from 1) or, for ``latency_us``, any positive number."""
    whole = name != "latency_us"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    sized = 0 < value <= LARGEST and (not whole or value == int(value))
    if not sized:
        kind = "a whole number from 1 to" if whole else "a number above 0, at most"
        errors.append(_field(line, name, text, f"{kind} {LARGEST:.0f}"))
    return value


def _check_row(
    line: int,
    family: OperatorFamily,
    variant: str,
    routing: str,
    values: dict[str, float],
    errors: list[FieldError],
) -> None:
    """What one number alone does not show."""
    if "ranks" in values and values["ranks"] < 2:
        errors.append(_field(line, "ranks", f"{values['ranks']:g}", "at least 2 ranks"))
    if family.startswith("mla") and variant not in ("kv_bf16", "kv_fp8"):
        errors.append(_field(line, "variant", variant, "one of kv_bf16, kv_fp8"))
    if {"heads", "kv_heads"} <= values.keys() and values["kv_heads"] > values["heads"]:
        found, most = f"{values['kv_heads']:g}", f"{values['heads']:g}"
        errors.append(_field(line, "kv_heads", found, f"at most heads, {most}"))
    if "top_k" in values and values["top_k"] > values["experts"]:
        found, most = f"{values['top_k']:g}", f"{values['experts']:g}"
        errors.append(_field(line, "top_k", found, f"at most experts, {most}"))
    if family == "moe":
        _check_moe(line, routing, values, errors)


def _check_moe(
    line: int, routing: str, values: dict[str, float], errors: list[FieldError]
) -> None:
    for name in ("tokens", "top_k", "experts", "ep"):
        most = MOST_TOKENS if name == "tokens" else MOST_EXPERTS
        if values[name] > most:
            errors.append(_field(line, name, f"{values[name]:g}", f"at most {most}"))
            return
    if int(values["experts"]) % int(values["ep"]):
        found, total = f"{values['ep']:g}", f"{values['experts']:g}"
        errors.append(_field(line, "ep", found, f"a divisor of experts, {total}"))
    if not _known_routing(routing):
        allowed = "balanced, uniform or power_law_A with A from 0.1 to 5 other than 1"
        errors.append(_field(line, "routing", routing, allowed))


def _known_routing(routing: str) -> bool:
    if routing in ("balanced", "uniform"):
        return True
    try:
        exponent = float(routing.removeprefix("power_law_"))
    except ValueError:
        return False
    return routing.startswith("power_law_") and 0.1 <= exponent <= 5 and exponent != 1


def _grouped(rows: list[_Row]) -> list[Table]:
    groups: dict[Key, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row.key, []).append(row)
    return [_table(key, group) for key, group in groups.items()]


def _table(key: Key, rows: list[_Row]) -> Table:
    columns = {
        name: np.array([row.values[name] for row in rows])
        for name in COLUMNS[key.family]
    }
    if key.family == "moe":
        busy = np.array([_busiest(row) for row in rows])
        columns |= {"woken": busy[:, 0], "pairs": busy[:, 1]}
    latency = np.array([row.latency_us for row in rows])
    return Table(key, columns, latency, tuple(row.line for row in rows))


def _busiest(row: _Row) -> tuple[float, float]:
    sizes = [int(row.values[n]) for n in ("tokens", "experts", "top_k", "ep")]
    return busiest_rank(row.routing, *sizes)


def _field(line: int, name: str, found: str, allowed: str) -> FieldError:
    return FieldError(
        f"row {line}, {name}", repr(found) if found else "nothing", allowed
    )


def _one_of(names: Iterable[str]) -> str:
    return f"one of {', '.join(names)}"
