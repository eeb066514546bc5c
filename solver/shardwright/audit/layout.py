"""Degrees, GPU products, layers and experts: how a strategy divides a model."""

from __future__ import annotations

from fractions import Fraction

from shardwright.audit.case import Case
from shardwright.audit.evidence import Evidence, Reading, Undecidable
from shardwright.audit.figures import figure, number
from shardwright.schema.claims import (
    DegreeClaim,
    ExpertsClaim,
    FactClaim,
    FormulaClaim,
    GpusClaim,
    LayersClaim,
    ReplicasClaim,
)
from shardwright.schema.printed import COUNT
from shardwright.schema.strategy_name import Strategy, parse_strategy

LAYOUTS = {
    "shared": "experts on the GPUs of attention",
    "multiplied": "every degree a factor",
    "separate": "experts on GPUs of their own",
}


def fact(case: Case, claim: FactClaim) -> Evidence:
    """A figure of the instance."""
    found = figure(case.instance, claim.figure)
    return Evidence(
        found.dimension, found.source, found.readings, found.needs, counted=True
    )


def formula(case: Case, claim: FormulaClaim) -> Evidence:
    """The document's own arithmetic, done again."""
    from shardwright.audit.evidence import refuse
    from shardwright.audit.formula import evaluate

    names = {
        name: case.value(claim, f"where.{name}", operand)
        for name, operand in claim.where.items()
    }
    try:
        found = evaluate(claim.formula, names)
    except ValueError as error:
        refuse(
            case.claims.document, claim.id, "formula", repr(claim.formula), str(error)
        )
    shown = ", ".join(f"{n} = {case.shown(o)}" for n, o in claim.where.items())
    text = claim.formula + (f" with {shown}" if shown else "")
    return Evidence(found.dimension, text, (Reading(found.number),))


def degree(case: Case, claim: DegreeClaim) -> Evidence:
    """A degree is what the strategy's name says."""
    strategy = parse_strategy(claim.strategy)
    value = Fraction(strategy.degree(claim.of))
    return Evidence(COUNT, f"{claim.of} of {strategy}", (Reading(value),))


def stage_gpus(strategy: Strategy, layout: str) -> int | None:
    """GPUs of one stage; None where the layout cannot hold the strategy.

    Experts on the GPUs of attention need an expert degree that divides them, or
    degrees of experts that make up the stage by themselves.
    """
    attention = strategy.degree("tp") * strategy.degree("cp")
    attention *= strategy.degree("attn_dp")
    experts = strategy.degree("ep") * strategy.degree("moe_tp")
    if layout == "multiplied":
        return attention * experts
    if layout == "separate":
        return attention + experts if experts > 1 else attention
    within = attention * (1 if strategy.attn_dp else strategy.degree("dp"))
    return within if experts == 1 or within % experts == 0 else None


def plan_gpus(strategy: Strategy, layout: str) -> int | None:
    """GPUs of the whole plan.

    Separate experts belong to a replica as a whole, as reports draw them. Shared
    experts lie over TP x DP: data parallelism is then part of the stage.
    """
    pp, dp = strategy.degree("pp"), strategy.degree("dp")
    stage = stage_gpus(strategy, layout)
    if stage is None:
        return None
    if layout == "separate" and strategy.ep:
        experts = strategy.degree("ep") * strategy.degree("moe_tp")
        return dp * ((stage - experts) * pp + experts)
    inside = layout == "shared" and strategy.ep and not strategy.attn_dp
    return stage * pp * (1 if inside else dp)


def _layouts(strategy: Strategy, layout: str | None) -> list[str]:
    if layout is not None:
        return [layout]
    return [*LAYOUTS] if _has_experts(strategy) else ["multiplied"]


def _has_experts(strategy: Strategy) -> bool:
    return strategy.degree("ep") > 1


def gpus(case: Case, claim: GpusClaim) -> Evidence:
    """The product of the degrees, by each way of counting experts."""
    strategy = parse_strategy(claim.strategy)
    readings, text = [], []
    for layout in _layouts(strategy, claim.layout):
        found = _count(strategy, layout, claim.per)
        words = LAYOUTS[layout] if _has_experts(strategy) else ""
        if found is not None:
            readings.append(Reading(Fraction(found), words))
            how = _product(strategy, layout, claim.per)
            text.append(f"{how} = {found}" + (f" ({words})" if words else ""))
    if not readings:
        raise Undecidable(f"how {strategy} lays experts over its GPUs")
    return Evidence(COUNT, "; ".join(text), tuple(readings))


def _count(strategy: Strategy, layout: str, per: str) -> int | None:
    if per == "stage":
        return stage_gpus(strategy, layout)
    whole = plan_gpus(strategy, layout)
    if whole is None or per == "plan":
        return whole
    return whole // strategy.degree("dp")


def _product(strategy: Strategy, layout: str, per: str) -> str:
    names = [*("tp", "cp", "attn_dp")]
    if per != "stage":
        names += ["pp"] + (["dp"] if per == "plan" else [])
    experts = strategy.degree("ep") * strategy.degree("moe_tp")
    if layout == "multiplied":
        names += ["ep", "moe_tp"]
    stated = [str(strategy.degree(n)) for n in names if getattr(strategy, n)]
    text = " x ".join(stated) or "1"
    if layout != "separate" or not strategy.ep:
        return text
    dp = strategy.degree("dp")
    return f"{dp} x ({strategy.degree('tp')} x {strategy.degree('pp')} + {experts})"


def replicas(case: Case, claim: ReplicasClaim) -> Evidence:
    """GPUs at hand over the GPUs of one replica."""
    strategy = parse_strategy(claim.strategy)
    at_hand = case.sized(claim, "gpus", claim.gpus, COUNT)
    readings, text = [], []
    for layout in _layouts(strategy, claim.layout):
        one = _count(strategy, layout, "replica")
        if one:
            readings.append(Reading(Fraction(at_hand // one), LAYOUTS[layout]))
            product = _product(strategy, layout, "replica")
            if layout == "separate":
                product = product.partition(" x ")[2].strip("()")
            text.append(f"a replica takes {product} = {one} of {at_hand} GPUs")
    return Evidence(COUNT, "; ".join(text), tuple(readings))


def layers(case: Case, claim: LayersClaim) -> Evidence:
    """An even split over the stages, or the range of one stage."""
    strategy, total = parse_strategy(claim.strategy), len(case.instance.model.layers)
    stages = strategy.degree("pp")
    base, rest = divmod(total, stages)
    if claim.stage is None:
        if rest:
            raise Undecidable(
                f"which stage: {total} layers on {stages} stages are {base} or "
                f"{base + 1} each"
            )
        text = f"{total} layers / {stages} stages"
        return Evidence(COUNT, text, (Reading(Fraction(base)),))
    if claim.stage >= stages or rest:
        raise Undecidable(f"how {total} layers lie on {stages} stages")
    ends = (claim.stage * base, (claim.stage + 1) * base - 1)
    text = f"{base} layers a stage: stage {claim.stage} has {ends[0]} to {ends[1]}"
    return Evidence(COUNT, text, ends=ends)


def experts(case: Case, claim: ExpertsClaim) -> Evidence:
    """Experts of a layer over the expert-parallel degree."""
    strategy = parse_strategy(claim.strategy)
    total = number(case.instance, "experts")
    each = total / strategy.degree("ep")
    if each.denominator != 1:
        low = each.numerator // each.denominator
        raise Undecidable(f"which GPU: {total} experts / {strategy.ep} are {low} or "
                          f"{low + 1}")  # fmt: skip
    tensor = strategy.degree("moe_tp")
    text = f"{total} experts / EP {strategy.degree('ep')}, in each layer"
    if tensor > 1:
        text += f"; of each a 1/{tensor} part"
    return Evidence(COUNT, text, (Reading(each),))
