"""Ground of every document: frozen models, quantities with units, hard caps."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

SCHEMA_VERSION: Literal["1.0"] = "1.0"

_UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SIZE = re.compile(r"^\s*(\d+)(?:\.(\d+))?\s*([KMGT]i?B|B)\s*$")


class Document(BaseModel):
    """A frozen, strict piece of a document: unknown keys and NaN are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        strict=True,
        validate_by_name=True,
        validate_by_alias=True,
    )


def without_new(document: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The document without these fields where nothing is given.

    What an older file cannot say leaves no trace, so that its hash stays.
    """
    empty = {name for name in names if document.get(name) is None}
    return {name: value for name, value in document.items() if name not in empty}


def parse_size(value: Any) -> int:
    """Bytes of a size such as ``80 GiB`` or ``80 GB`` (fractions round down).

    A bare number is refused: GB is 1e9 bytes, GiB is 2^30, and the file must say
    which it means.
    """
    if isinstance(value, str):
        match = _SIZE.match(value)
        if match:
            whole, fraction, unit = match.groups()
            fraction = fraction or ""
            digits = int(whole + fraction)
            return int(digits * _UNITS[unit] // 10 ** len(fraction))
    raise ValueError(
        f"a size with its unit is needed, such as '80 GiB' (2^30) or '80 GB' (1e9); "
        f"found {value!r}"
    )


def format_size(value_bytes: int) -> str:
    """The exact size as written in a document."""
    for unit in ("GiB", "GB", "MiB", "MB"):
        if value_bytes and value_bytes % _UNITS[unit] == 0:
            return f"{value_bytes // _UNITS[unit]} {unit}"
    return f"{value_bytes} B"


def _parse_fraction(value: Any) -> Any:
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return float(value) if type(value) is int else value


def _as_float(value: Any) -> Any:
    return float(value) if type(value) is int else value


Size = Annotated[
    int,
    BeforeValidator(parse_size, json_schema_input_type=str),
    Field(ge=0, le=2**50),
    PlainSerializer(format_size, return_type=str),
]
"""Bytes, written with a unit."""

Number = Annotated[float, BeforeValidator(_as_float)]
Positive = Annotated[Number, Field(gt=0, le=1e12)]
NonNegative = Annotated[Number, Field(ge=0, le=1e12)]
Share = Annotated[
    float,
    BeforeValidator(_parse_fraction, json_schema_input_type=float | str),
    Field(gt=0, le=1),
]
"""A share of one: 0.85 or '85%'."""

Tolerance = Annotated[
    float,
    BeforeValidator(_parse_fraction, json_schema_input_type=float | str),
    Field(ge=0, le=10),
]
"""A relative excess: 0.05 or '5%'."""

Count = Annotated[int, Field(ge=1, le=10**6)]
Index = Annotated[int, Field(ge=0, le=10**6)]
Tokens = Annotated[int, Field(ge=1, le=10**8)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
