"""Figures as reports print them: value, unit, and the precision that the print has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Relation = Literal["=", "<", "<=", ">", ">="]
Dimension = tuple[int, int, int]
"""Exponents of byte, second and floating-point operation; counts have none."""

COUNT: Dimension = (0, 0, 0)
BYTE: Dimension = (1, 0, 0)
SECOND: Dimension = (0, 1, 0)
FLOP: Dimension = (0, 0, 1)
RATE: Dimension = (0, -1, 0)
BANDWIDTH: Dimension = (1, -1, 0)
COMPUTE: Dimension = (0, -1, 1)

_DECIMAL = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_WORDS = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_COUNTED = (
    "GPU node stage replica layer expert group part module partition slot head core "
    "sequence token request parameter dimension micro-batch step byte/parameter shard"
)
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_PRINT = re.compile(
    rf"\s*(?P<about>[~≈])?\s*(?P<relation><=|>=|<|>|≤|≥)?\s*(?P<low>{_NUMBER})"
    rf"(?:\s*-\s*(?P<high>{_NUMBER}))?(?P<plus>\+)?\s*"
    r"(?P<word>thousand|million|billion|trillion)?\s*(?P<unit>[^\d\s].*?)?\s*"
)
_SIGNS: dict[str, Relation] = {
    "=": "=", "<": "<", "<=": "<=", ">": ">", ">=": ">=", "≤": "<=", "≥": ">=",
}  # fmt: skip
APPROXIMATE = Fraction(5, 100)
"""No place coarser than this share of a figure counts as unprinted (20 GB, 140 GB)."""


_LARGEST = 10**25


@dataclass(frozen=True)
class Unit:
    """``factor`` of the base units (B, s, FLOP, one); ``binary`` is the factor that
    the same prefix would have as a power of 1024, for sizes printed with GB."""

    name: str
    dimension: Dimension
    factor: Fraction
    exact: bool = False
    binary: int | None = None


@dataclass(frozen=True)
class Printed:
    """A printed figure in base units; ``high`` is ``low`` unless a range is printed.

    ``half`` is half of the last printed place: what is this near is printed the same.
    """

    text: str
    low: Fraction
    high: Fraction
    unit: Unit
    relation: Relation
    about: bool
    half: Fraction

    @property
    def is_range(self) -> bool:
        """Whether two ends are printed."""
        return self.low != self.high


def _units() -> dict[str, Unit]:
    units = {"": Unit("", COUNT, Fraction(1), exact=True)}

    def add(name: str, dimension: Dimension, factor: Fraction | int) -> None:
        binary = None
        prefix = name[0] if len(name) > 1 and name[1:].startswith("B") else ""
        if dimension in (BYTE, BANDWIDTH) and prefix in _DECIMAL and prefix:
            binary = 1024 ** _DECIMAL[prefix]
        units[name] = Unit(name, dimension, Fraction(factor), False, binary)

    for prefix, power in _DECIMAL.items():
        scale = 1000**power
        add(f"{prefix}B", BYTE, scale)
        add(f"{prefix}B/s", BANDWIDTH, scale)
        add(f"{prefix}FLOP", FLOP, scale)
        add(f"{prefix}FLOP/s", COMPUTE, scale)
        add(f"{prefix}FLOPS", COMPUTE, scale)
        add(f"{prefix}bps", BANDWIDTH, Fraction(scale, 8))
        add(f"{prefix}b/s", BANDWIDTH, Fraction(scale, 8))
        if power:
            add(f"{prefix}iB", BYTE, 1024**power)
    add("bytes", BYTE, 1)
    for name, power in (("s", 0), ("ms", 1), ("us", 2), ("µs", 2), ("ns", 3)):
        add(name, SECOND, Fraction(1, 1000**power))
        for counted in ("tokens", "requests", "steps"):
            add(f"{counted}/{name}", RATE, 1000**power)
    add("RPS", RATE, 1)
    add("%", COUNT, Fraction(1, 100))
    add("x", COUNT, 1)
    for noun in _COUNTED.split():
        plural = noun.replace("byte", "bytes") if "/" in noun else f"{noun}s"
        plural = plural.replace("chs", "ches")
        for name in (noun, plural):
            units[name] = Unit(name, COUNT, Fraction(1), exact=True)
    return units


UNITS = _units()


def parse_printed(text: str) -> Printed:
    """The figure in ``text``, such as ``~17.5 GB``, ``<5%``, ``20-40 ms``, ``10+ RPS``.

    Raises ValueError naming what is allowed. GB is 1e9 bytes, GiB is 2^30; Gbps are
    bits. A count without "~" is exact.
    """
    match = _PRINT.fullmatch(text)
    unit = UNITS.get(match["unit"] or "") if match else None
    if match is None or unit is None:
        raise ValueError(
            "a figure with a known unit, such as '17.5 GB', '~32 MB', '<5%', "
            "'450 GB/s', '900 Gbps', '20-40 ms', '70 billion parameters'; "
            f"found {text!r}"
        )
    scale = unit.factor * _WORDS.get(match["word"] or "", 1)
    low, high = (_value(match[end] or match["low"]) for end in ("low", "high"))
    if high < low:
        raise ValueError(f"a range from low to high; found {text!r}")
    if high * scale > _LARGEST:
        raise ValueError(f"a figure of at most 1e25 base units; found {text!r}")
    sign = match["relation"] or ("≥" if match["plus"] else "=")
    relation = _SIGNS[sign]
    whole = "." not in match["low"]
    exact = unit.exact and whole and not match["word"] and not match["about"]
    half = Fraction(0) if exact else _half(match["low"], unit) * scale
    return Printed(
        text.strip(), low * scale, high * scale, unit, relation,
        bool(match["about"]), half,
    )  # fmt: skip


def _value(number: str) -> Fraction:
    return Fraction(number.replace(",", ""))


def _half(number: str, unit: Unit) -> Fraction:
    """Half of the last place; zeros that end a whole number may only hold one."""
    digits = number.replace(",", "")
    if "." in digits:
        return Fraction(1, 2 * 10 ** len(digits.split(".")[1]))
    if unit.name in ("%", "x"):
        return Fraction(1, 2)
    zeros = len(digits) - len(digits.rstrip("0"))
    coarse = Fraction(10**zeros, 2)
    return max(Fraction(1, 2), min(coarse, APPROXIMATE * _value(number)))


def in_unit(value: Fraction, unit: Unit) -> str:
    """A value in base units, written in ``unit`` with about four figures."""
    number = value / unit.factor
    if unit.exact and abs(number) >= _WORDS["billion"]:
        return f"{float(number) / 1e9:.4g} billion {unit.name}".strip()
    if number.denominator == 1 and abs(number) < 10**7:
        text = f"{int(number):,}"
    else:
        size = abs(float(number))
        text = f"{float(number):,.{0 if size >= 10**4 else 1}f}"
        if size < 1000:
            text = f"{float(number):.4g}"
    glue = "" if unit.name in ("%", "x", "") else " "
    name = unit.name
    if number == 1 and unit.exact:
        name = name.removesuffix("es") if name.endswith("ches") else name.rstrip("s")
    return f"{text}{glue}{name}"
