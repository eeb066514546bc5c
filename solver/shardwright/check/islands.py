"""Rules of how stages and their groups lie on islands. Tolerance 0."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from shardwright.check.case import Case, Rule
from shardwright.check.figures import StageFigures
from shardwright.check.inventory import Island
from shardwright.check.report import RuleRow, at_most
from shardwright.check.stage import across, has_experts


def stage_inside_island(case: Case) -> Iterator[RuleRow]:
    """z = 1; cp = moe_dp = 1: z > 1 whole islands if ep > 1 or tp <= most allowed"""
    for stage in case.stages():
        islands = case.inventory.islands(stage.stage.gpus)
        layout = stage.layout
        single = layout.apart or layout.cp > 1 or layout.moe_dp > 1
        spread = layout.ep > 1 or across(case.instance, stage.stage)
        spread = spread and not single
        if spread and len(islands) > 1:
            yield from _whole_islands(case, stage, islands)
        else:
            yield at_most(
                "stage_inside_island",
                stage.label,
                "islands spanned are",
                len(islands),
                1,
                "islands",
                detail=", ".join(_name(island) for island in islands),
            )


def _whole_islands(
    case: Case, stage: StageFigures, islands: list[Island]
) -> Iterator[RuleRow]:
    """No usable GPU of an island is left out; each gives as many as the first."""
    taken = {island: _taken(case, stage, island) for island in islands}
    left = {island: case.inventory.usable(island) - taken[island] for island in islands}
    broken = [f"{_name(at)} without GPU {_listed(left[at])}" for at in left if left[at]]
    first = len(taken[islands[0]])
    other = [
        f"{len(taken[at])} on {_name(at)}" for at in taken if len(taken[at]) != first
    ]
    for quantity, found in (
        ("islands not taken whole are", broken),
        (f"islands with another number of GPUs than {first} are", other),
    ):
        yield at_most(
            "stage_inside_island",
            stage.label,
            quantity,
            len(found),
            0,
            "islands",
            detail=", ".join(found),
        )


def _taken(case: Case, stage: StageFigures, island: Island) -> set[int]:
    """The island's GPUs that the stage has."""
    gpus = stage.stage.gpus
    return {gpu.gpu for gpu in gpus if case.inventory.islands([gpu]) == [island]}


def _listed(indices: set[int]) -> str:
    return " and ".join(map(str, sorted(indices)))


def _name(island: Island) -> str:
    node, index = island
    return f"island {index} of {node}"


def tensor_groups_inside_island(case: Case) -> Iterator[RuleRow]:
    """tp and moe_tp divide G/z, every tp ranks in a row on one island; with experts"""
    if not has_experts(case.instance.model):
        return
    for stage in case.stages():
        yield from _left_over(stage)
        yield _groups_torn(case, stage)


def _left_over(stage: StageFigures) -> Iterator[RuleRow]:
    layout, rest = stage.layout, _attention_gpus(stage)
    experts = layout.expert_gpus if layout.apart else rest
    for name, gpus in (("tp", rest), ("moe_tp", experts)):
        per_island = Fraction(gpus, layout.islands)
        degree = getattr(layout, name)
        yield at_most(
            "tensor_groups_inside_island",
            stage.label,
            f"GPUs of an island that groups of {name} {degree} leave over are",
            per_island % degree,
            0,
            "GPU",
        )


def _attention_gpus(stage: StageFigures) -> int:
    """The first GPUs of the stage; experts may have the last ones to themselves."""
    return max(0, len(stage.stage.gpus) - stage.layout.expert_gpus)


def _groups_torn(case: Case, stage: StageFigures) -> RuleRow:
    gpus, tp = stage.stage.gpus[: _attention_gpus(stage)], stage.tp
    groups = [gpus[i : i + tp] for i in range(0, len(gpus), tp)]
    torn = [
        f"ranks {group[0].rank} to {group[-1].rank}"
        for group in groups
        if len(case.inventory.islands(group)) > 1
    ]
    return at_most(
        "tensor_groups_inside_island",
        stage.label,
        "tensor-parallel groups across islands are",
        len(torn),
        0,
        "groups",
        detail=", ".join(torn),
    )


ISLANDS: tuple[Rule, ...] = (stage_inside_island, tensor_groups_inside_island)
