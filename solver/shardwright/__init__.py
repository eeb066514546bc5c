"""shardwright: which parallel configuration and GPU placement to deploy, proven.

The names below are the whole public API; each is imported on first use, so that
``import shardwright`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from shardwright._version import __version__ as __version__

if TYPE_CHECKING:
    from shardwright.audit import audit as audit
    from shardwright.audit import load_claims as load_claims
    from shardwright.check import check as check
    from shardwright.ingest import load as load
    from shardwright.ingest import load_plan as load_plan
    from shardwright.ingest.importers import import_cluster as import_cluster
    from shardwright.ingest.routed import load_routed as load_routed
    from shardwright.planning.fleet_mix import mix as mix
    from shardwright.planning.pareto import pareto as pareto
    from shardwright.planning.routed import solve_routed as solve_routed
    from shardwright.planning.scaling import scale as scale
    from shardwright.planning.sweep import sweep as sweep
    from shardwright.schema import Instance as Instance
    from shardwright.schema import Plan as Plan
    from shardwright.schema import Result as Result
    from shardwright.schema import Status as Status
    from shardwright.schema import errors as errors
    from shardwright.solve import Solution as Solution
    from shardwright.solve import solve as solve

_HOMES = {
    "import_cluster": "shardwright.ingest.importers",
    "load_claims": "shardwright.audit",
    "load": "shardwright.ingest",
    "load_plan": "shardwright.ingest",
    "load_routed": "shardwright.ingest.routed",
    "solve_routed": "shardwright.planning.routed",
    "mix": "shardwright.planning.fleet_mix",
    "pareto": "shardwright.planning.pareto",
    "scale": "shardwright.planning.scaling",
    "sweep": "shardwright.planning.sweep",
    "Instance": "shardwright.schema",
    "Plan": "shardwright.schema",
    "Result": "shardwright.schema",
    "Status": "shardwright.schema",
    "Solution": "shardwright.solve",
}
_CALLABLE = ("audit", "check", "solve")
"""Submodules that can be called (``_callable.py``)."""

__all__ = sorted([*_HOMES, *_CALLABLE, "__version__", "errors"])


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("shardwright.schema.errors")
    if name in _CALLABLE:
        return import_module(f"shardwright.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'shardwright' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
