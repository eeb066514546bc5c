"""The rule of pools: prefill and decode replicas need each other (cost-model §10)."""

from __future__ import annotations

from collections.abc import Iterator

from shardwright.check.case import Case, Rule
from shardwright.check.report import RuleRow, at_most
from shardwright.schema.instance import Instance
from shardwright.schema.plan import PoolRole

_ALLOWED: dict[str, tuple[PoolRole, ...]] = {
    "mixed": ("mixed",),
    "disaggregated": ("prefill", "decode"),
    "any": ("mixed", "prefill", "decode"),
}


def pools_complete(case: Case) -> Iterator[RuleRow]:
    """prefill replicas exist exactly when decode replicas do; roles as pools allows"""
    replicas, rule = case.figures.replicas, "pools_complete"
    prefill = sum(replica.role == "prefill" for replica in replicas)
    decode = sum(replica.role == "decode" for replica in replicas)
    alone = 0 if prefill and decode else prefill + decode
    words = f"replicas alone ({prefill} of prefill, {decode} of decode) are"
    yield at_most(rule, "plan", words, alone, 0, "replicas")
    others = [r.label for r in replicas if r.role not in _allowed(case.instance)]
    words = f"replicas that pools: {case.instance.pools} does not have are"
    found = ", ".join(others)
    yield at_most(rule, "plan", words, len(others), 0, "replicas", detail=found)


def _allowed(instance: Instance) -> tuple[PoolRole, ...]:
    """Only mixed replicas are known to meet an e2e target, or to survive a loss."""
    roles = _ALLOWED[instance.pools]
    whole = any(target.metric == "e2e" for target in instance.slo)
    if whole or instance.limits.survive:
        return tuple(role for role in roles if role == "mixed")
    return roles


POOLS: tuple[Rule, ...] = (pools_complete,)
