"""Options that stand for fields of the instance: read strictly, as the file is."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.instance import Fix, Instance, Pools
from shardwright.schema.workload import Goal

_ALIASES = {"chunk": "prefill_chunk_tokens", "q": "micro_batches", "m": "sequences"}
_FIX_FORM = "tp=2,pp=4,layers=20+20+20+20,dp=1,sequences=64,chunk=2048,micro_batches=4"
_PAIRS = {"afd": "attention and expert GPUs of a stage, as 4+4"}


def override(
    instance: Instance,
    *,
    fix: str | None = None,
    objective: str | None = None,
    pools: str | None = None,
    latencies: str | None = None,
) -> Instance:
    """The instance with what the options say in its place."""
    changes: dict[str, Any] = {}
    if fix is not None:
        changes["fix"] = parse_fix(fix, instance.fix)
    if objective is not None:
        changes["objective"] = parse_objective(objective)
    if pools is not None:
        changes["pools"] = parse_pools(pools)
    if latencies is not None:
        source = {"latencies": parse_latencies(latencies)}
        changes["engine"] = instance.engine.model_copy(update=source)
    if not changes:
        return instance
    changed = instance.model_copy(update=changes)
    _refuse_contradictions(changed)
    return changed


def needs_folder(certificate: bool, save_dir: Path | None) -> None:
    """A certificate is written beside the result. Raises InvalidInstance."""
    if certificate and save_dir is None:
        error = FieldError("--certificate", "no --save-dir", "with --save-dir DIR")
        raise InvalidInstance("command line", [error])


def _refuse_contradictions(instance: Instance) -> None:
    from shardwright.ingest.consistency import consistency_errors

    errors = consistency_errors(instance)
    if errors:
        raise InvalidInstance("command line", [_renamed(error) for error in errors])


def _renamed(error: FieldError) -> FieldError:
    head, _, field = error.path.partition(".")
    path = f"--fix {field}" if head == "fix" else error.path
    return FieldError(path, error.found, error.allowed)


def parse_fix(text: str, given: Fix) -> Fix:
    """Decisions of ``--fix``; fields that it does not name keep the file's value."""
    fields: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        field = _ALIASES.get(name, name)
        if field not in Fix.model_fields or not equals:
            raise _refused("--fix", part, f"NAME=VALUE as in {_FIX_FORM}")
        if field in fields:
            raise _refused(f"--fix {name}", part, "each decision once")
        fields[field] = _fix_value(name, field, value)
    return given.model_copy(update=fields)


def _fix_value(name: str, field: str, value: str) -> int | tuple[int, ...]:
    if field not in ("layers", *_PAIRS):
        return _count(name, value, 2 if field == "ping_pong" else 1)
    counts = tuple(_count(name, count) for count in value.split("+"))
    if field in _PAIRS and len(counts) != 2:
        raise _refused(f"--fix {name}", value, _PAIRS[field])
    return counts


def _count(name: str, text: str, least: int = 1) -> int:
    count = int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0
    if not least <= count <= 10**6:
        allowed = f"a whole number from {least} to 1000000"
        raise _refused(f"--fix {name}", text, allowed)
    return count


def parse_objective(text: str) -> tuple[Goal, ...]:
    """Goals in order, first the most important."""
    known: dict[str, Goal] = {goal: goal for goal in get_args(Goal)}
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise _refused("--objective", name, f"one of {', '.join(known)}")
    if len(set(names)) != len(names):
        raise _refused("--objective", text, "each goal once")
    return tuple(known[name] for name in names)


def parse_pools(text: str) -> Pools:
    """mixed, disaggregated or any."""
    known: dict[str, Pools] = {pools: pools for pools in get_args(Pools)}
    if text not in known:
        raise _refused("--pools", text, f"one of {', '.join(known)}")
    return known[text]


def parse_latencies(text: str) -> str:
    """analytic or silicon."""
    known = ("analytic", "silicon")
    if text not in known:
        raise _refused("--latencies", text, f"one of {', '.join(known)}")
    return text


def parse_gap(text: str) -> Fraction:
    """A relative gap: 0.1% or 0.001."""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        gap = Fraction(number) / (100 if percent else 1)
    except (ValueError, ZeroDivisionError):
        gap = Fraction(-1)
    if not 0 <= gap < 1:
        raise _refused("--gap", text, "a share from 0 to below 1, as 0.1% or 0.001")
    return gap


def parse_seconds(seconds: float) -> float:
    """A time limit; NaN passes every comparison that refuses, so it is named."""
    if not 0 <= seconds <= 1e9:
        raise _refused("--time-limit", f"{seconds:g}", "seconds from 0 to 1e9")
    return seconds


def parse_tables(text: str | None) -> list[str] | None:
    """Names of tables; None stands for the default ones."""
    from shardwright.plan.answer import table_names

    if text is None:
        return None
    known = table_names()
    names = list(known) if text == "all" else [n.strip() for n in text.split(",")]
    for name in names:
        if name not in known:
            raise _refused("--tables", name, f"all, or some of {', '.join(known)}")
    return names


def _refused(path: str, found: str, allowed: str) -> InvalidInstance:
    return InvalidInstance("command line", [FieldError(path, repr(found), allowed)])


def parse_factors(option: str, text: str) -> tuple[int, ...]:
    """Whole factors, as 2,4; 0 stands for none."""
    factors: list[int] = []
    for part in text.split(","):
        word = part.strip()
        if not (word.isascii() and word.isdigit() and int(word[:5]) <= 1024):
            raise _refused(option, text, "whole factors up to 1024, as 2,4, or 0")
        factors.append(int(word[:5]))
    return tuple(factor for factor in factors if factor)
