"""The rule of expert maps; all of it is exact but the balance, which is a float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from shardwright.check.case import Case, Rule
from shardwright.check.exact import RELATIVE_TOLERANCE, exact
from shardwright.check.maps import (
    balanced,
    expert_counts,
    faults_of,
    key_of,
    own_balance,
)
from shardwright.check.report import RuleRow, at_most, equal
from shardwright.schema.plan import ExpertMap

RULE = "expert_map"


def expert_map(case: Case) -> Iterator[RuleRow]:
    """loads and ep > 1: one map per (ep, s), every expert in every row; else none"""
    entries = case.plan.expert_map or ()
    yield from _present(case)
    for entry in entries:
        name = _name(*key_of(entry))
        idle = int(not balanced(case.instance, entry.ep))
        words = "maps without expert loads or expert parallelism are"
        yield at_most(RULE, name, words, idle, 0, "maps")
        if not idle:
            yield from _rows(case, entry, name)


def _present(case: Case) -> Iterator[RuleRow]:
    """One map for each (ep, slots) in use."""
    layouts = [stage.layout for stage in case.stages()]
    used = [at for at in layouts if balanced(case.instance, at.ep)]
    found = Counter(key_of(entry) for entry in case.plan.expert_map or ())
    for key in dict.fromkeys((layout.ep, layout.slots) for layout in used):
        yield equal(RULE, _name(*key), "maps in the plan are", found[key], 1, "maps")


def _name(ep: int, slots: int) -> str:
    return f"expert map for ep {ep} with {slots} slots"


def _rows(case: Case, entry: ExpertMap, name: str) -> Iterator[RuleRow]:
    """The map places every expert of every layer, and balances as it claims."""
    rows, layers = len(entry.layers), len(expert_counts(case.instance.model))
    yield equal(RULE, name, "rows (layers with experts) are", rows, layers, "layer")
    faults = faults_of(case.instance, entry)
    for words, found, unit in (
        ("layers with another number of slots are", faults.sizes, "layer"),
        ("experts that the model does not have are", faults.unknown, "experts"),
        ("experts without a slot are", faults.missing, "experts"),
        ("experts twice on one GPU are", faults.twice, "experts"),
    ):
        detail = _some(found)
        yield at_most(RULE, name, words, len(found), 0, unit, detail=detail)
    yield from _balance(case, entry, name)


def _some(found: list[str]) -> str:
    """The first faults in words; a spoiled map may have thousands."""
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return ", ".join(found[:5]) + more


def _balance(case: Case, entry: ExpertMap, name: str) -> Iterator[RuleRow]:
    claim, own = exact(entry.balance), own_balance(case.instance, entry)
    if own is not None:
        yield equal(
            RULE,
            name,
            "balance (busiest GPU over the mean) is",
            claim,
            own,
            "share",
            allowance=own * RELATIVE_TOLERANCE,
        )


EXPERT_MAPS: tuple[Rule, ...] = (expert_map,)
