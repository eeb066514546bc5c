"""Expert maps: what they hold, and how they balance (docs/cost-model.md, section 9)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from shardwright.check.exact import RELATIVE_TOLERANCE, exact
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.instance import Instance
from shardwright.schema.model import ModelSpec, MoeFfn
from shardwright.schema.plan import ExpertMap, Plan

MapKey = tuple[int, int]
"""(``ep``, slots per GPU): what a map is for."""


def balanced(instance: Instance, ep: int) -> bool:
    """True where experts are laid out by their loads: these are known, and e > 1."""
    if instance.workload.expert_loads is None or ep == 1:
        return False
    return bool(expert_counts(instance.model))


def key_of(entry: ExpertMap) -> MapKey:
    """What the map is for."""
    return entry.ep, entry.slots_per_gpu


def check_loads(instance: Instance) -> None:
    """Raise InvalidInstance unless loads fit: a row per layer with experts, E wide."""
    loads, counts = instance.workload.expert_loads, expert_counts(instance.model)
    if loads is None or not counts:
        return
    widths = [len(row) for row in loads.tokens]
    if widths != counts:
        found = f"{len(widths)} rows of {_set(widths)}"
        wanted = f"{len(counts)} rows of {_set(counts)}, as the layers with experts"
        error = FieldError("workload.expert_loads", found, wanted)
        raise InvalidInstance("workload", [error])


def _set(numbers: list[int]) -> str:
    return " or ".join(str(number) for number in sorted(set(numbers)))


def expert_counts(model: ModelSpec) -> list[int]:
    """E of each layer with experts, in order."""
    kinds = [model.layer_kinds[i] for i in model.kind_indices()]
    return [kind.ffn.experts for kind in kinds if isinstance(kind.ffn, MoeFfn)]


@dataclass(frozen=True)
class MapFaults:
    """What is wrong with the rows of a map; each fault in words."""

    sizes: list[str]
    unknown: list[str]
    missing: list[str]
    twice: list[str]

    def any(self) -> bool:
        """True unless every row is a placement of all experts."""
        return bool(self.sizes or self.unknown or self.missing or self.twice)


def faults_of(instance: Instance, entry: ExpertMap) -> MapFaults:
    """Row by row: the number of slots, every expert somewhere, on no GPU twice."""
    faults = MapFaults([], [], [], [])
    counts = expert_counts(instance.model)
    for index, (row, experts) in enumerate(zip(entry.layers, counts, strict=False)):
        where, held = f"row {index}", set(row)
        if len(row) != entry.ep * entry.slots_per_gpu:
            faults.sizes.append(f"{where} has {len(row)} slots")
        unknown = sorted(expert for expert in held if expert >= experts)
        faults.unknown.extend(f"{where} has expert {expert}" for expert in unknown)
        missing = sorted({*range(experts)} - held)
        faults.missing.extend(f"{where} lacks expert {expert}" for expert in missing)
        faults.twice.extend(f"{where} has {words}" for words in _twice(entry, row))
    return faults


def _twice(entry: ExpertMap, row: Sequence[int]) -> list[str]:
    """Experts with several slots on one GPU."""
    size = entry.slots_per_gpu
    slots = Counter((expert, slot // size) for slot, expert in enumerate(row))
    return [f"expert {e} twice on GPU {g}" for (e, g), n in slots.items() if n > 1]


def own_balance(instance: Instance, entry: ExpertMap) -> Fraction | None:
    """Mean over the layers of largest/mean GPU load; None for a faulty map."""
    loads = instance.workload.expert_loads
    rows = len(expert_counts(instance.model))
    if loads is None or len(entry.layers) != rows or faults_of(instance, entry).any():
        return None
    pairs = zip(entry.layers, loads.tokens, strict=True)
    return sum((_peak(entry, *pair) for pair in pairs), Fraction(0)) / rows


def _peak(entry: ExpertMap, row: Sequence[int], tokens: Sequence[float]) -> Fraction:
    """Largest GPU load over the mean; an expert's tokens lie evenly on its slots."""
    slots = Counter(row)
    share = {expert: exact(tokens[expert]) / n for expert, n in slots.items()}
    size = entry.slots_per_gpu
    gpus = [row[g * size : (g + 1) * size] for g in range(entry.ep)]
    loads = [sum((share[expert] for expert in gpu), Fraction(0)) for gpu in gpus]
    return max(loads) * entry.ep / sum(loads, Fraction(0))


def balances_of(instance: Instance, plan: Plan) -> dict[MapKey, Fraction]:
    """β of each map: the claim where it holds, else the own value.

    A faulty map has no own value, and breaks ``expert_map`` whatever it claims.
    """
    found: dict[MapKey, Fraction] = {}
    for entry in plan.expert_map or ():
        own = own_balance(instance, entry)
        found.setdefault(key_of(entry), _settled(exact(entry.balance), own))
    return found


def _settled(claim: Fraction, own: Fraction | None) -> Fraction:
    if own is None or abs(claim - own) <= own * RELATIVE_TOLERANCE:
        return claim
    return own
