"""All rules, in the order of the report (docs/rules.md is the same table)."""

from __future__ import annotations

from shardwright.check.apart import APART
from shardwright.check.case import Rule
from shardwright.check.claims import CLAIMS
from shardwright.check.engine import ENGINE
from shardwright.check.expert_maps import EXPERT_MAPS
from shardwright.check.islands import ISLANDS
from shardwright.check.limits import LIMITS
from shardwright.check.loads import LOADS
from shardwright.check.placement import PLACEMENT
from shardwright.check.pools import POOLS
from shardwright.check.structure import STRUCTURE

CHECKS: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        *STRUCTURE,
        *POOLS,
        *ISLANDS,
        *PLACEMENT,
        *APART,
        *EXPERT_MAPS,
        *ENGINE,
        *LIMITS,
        *CLAIMS,
        *LOADS,
    )
}

RULES: dict[str, str] = {name: rule.__doc__ or "" for name, rule in CHECKS.items()}
"""Name of every rule and its mathematical statement."""
