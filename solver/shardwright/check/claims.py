"""What the plan claims of itself, and decisions that were fixed beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from shardwright.check.case import Case, Rule
from shardwright.check.exact import NS_PER_MS, RELATIVE_TOLERANCE, Number
from shardwright.check.figures import Figures, ReplicaFigures, StageFigures
from shardwright.check.limits import priced
from shardwright.check.report import RuleRow, at_most, equal
from shardwright.check.stage import has_experts
from shardwright.schema.instance import Fix
from shardwright.schema.result import ObjectiveValue

PARTS = ("weights", "kv_cache", "activations", "communication", "framework")


def memory_parts(case: Case) -> Iterator[RuleRow]:
    """each of the five parts of a stage = the recomputed one"""
    for stage in case.stages():
        for part in PARTS:
            claim = getattr(stage.stage.memory_bytes, part)
            own = getattr(stage.memory, part)
            yield equal("memory_parts", stage.label, f"{part} is", claim, own, "B")
        yield from _expert_parts(stage)


def _expert_parts(stage: StageFigures) -> Iterator[RuleRow]:
    unit, memory = stage.stage.expert_unit, stage.expert_memory
    if unit is None:
        return
    for part in PARTS:
        claim, own = getattr(unit.memory_bytes, part), getattr(memory, part)
        words = f"{part} of an expert GPU is"
        yield equal("memory_parts", stage.label, words, claim, own, "B")


def decode_time(case: Case) -> Iterator[RuleRow]:
    """abs(τ_s - (ρ(m, c) + Σ τ_g(m, c))) <= 1e-9·τ_s + 1 ns·(layers + 1)"""
    for stage in case.stages():
        yield equal(
            "decode_time",
            stage.label,
            "decode_time_ns is",
            stage.stage.decode_time_ns,
            stage.decode.total_ns,
            "ns",
            allowance=stage.decode.allowance_ns(),
            note=_source(case),
        )


def prefill_time(case: Case) -> Iterator[RuleRow]:
    """abs(σ_s - (ρ_σ(m, s) + Σ σ_g(m, s))) <= 1e-9·σ_s + 1 ns·(layers + 1)"""
    for stage in case.stages():
        yield equal(
            "prefill_time",
            stage.label,
            "prefill_time_ns is",
            stage.stage.prefill_time_ns,
            stage.prefill.total_ns,
            "ns",
            allowance=stage.prefill.allowance_ns(),
            note=_source(case),
        )


MEASURED = "measured-backend"


def _source(case: Case) -> str:
    """Times of measured tables are inputs, not recomputed."""
    return MEASURED if case.instance.engine.latencies == "silicon" else ""


def tpot(case: Case) -> Iterator[RuleRow]:
    """Θ = max(q·T, S) of the claimed stage times; each hop within 1 ns"""
    for replica in case.figures.replicas:
        claim, own = replica.replica.latency.tpot_ns, replica.stated.tpot_ns
        yield equal("tpot", replica.label, "tpot_ns is", claim, own, "ns")


def prefill_latency(case: Case) -> Iterator[RuleRow]:
    """Π = Σ σ_s + Σ θ + (K - 1)·max σ_s of the claimed stage times; hops within 1 ns"""
    for replica in case.figures.replicas:
        claim, own = replica.replica.latency.prefill_ns, replica.stated.prefill_ns
        yield equal("prefill_latency", replica.label, "prefill_ns is", claim, own, "ns")


def ttft(case: Case) -> Iterator[RuleRow]:
    """TTFT = ⌈Θ/(2q)⌉ + Π; of a prefill replica + x, of a decode replica 0"""
    for replica in case.figures.replicas:
        claim, own = replica.replica.latency.ttft_ns, replica.stated.ttft_ns
        yield equal("ttft", replica.label, "ttft_ns is", claim, own, "ns")


def rate_claim(case: Case) -> Iterator[RuleRow]:
    """rate = ⌊Y·10^12/Θ⌋, of pools at most G·ρ; with targets on percentiles <= that"""
    for replica in case.figures.replicas:
        row = at_most if replica.has_percentiles else equal
        claim = replica.replica.latency.rate_mtok_per_s
        own = replica.stated.rate_mtok_per_s
        who, words = replica.label, "rate_mtok_per_s is"
        yield row("rate_claim", who, words, claim, own, "mtok/s")


def objective_value(case: Case) -> Iterator[RuleRow]:
    """abs(claimed - recomputed) <= 1e-9·recomputed, for each goal that has a value"""
    for goal in case.objectives:
        if goal.value is not None:
            yield _objective_row(case, goal, Fraction(goal.value))


def _objective_row(case: Case, goal: ObjectiveValue, claim: Fraction) -> RuleRow:
    own, unit = goal_value(case.figures, goal.name)
    entity = f"objective {goal.name}"
    row = equal(
        "objective_value",
        entity,
        "value is",
        claim,
        own,
        unit,
        allowance=own * RELATIVE_TOLERANCE,
    )
    if not unit:
        return row._replace(holds=False, detail="the checker does not know this goal")
    return priced(case, row) if goal.name == "cost" else row


def goal_value(figures: Figures, goal: str) -> tuple[Number, str]:
    """The recomputed value of a goal and its unit; no unit for an unknown goal."""
    values: dict[str, tuple[Number, str]] = {
        "gpus": (figures.gpus_used, "GPU"),
        "cost": (Fraction(figures.cost_micro_usd_per_hour, 10**6), "USD/h"),
        "throughput": (Fraction(figures.rate_mtok_per_s(), 1000), "tokens/s"),
        "tpot": (Fraction(figures.tpot_ns(), NS_PER_MS), "ms"),
        "ttft": (Fraction(figures.ttft_ns(), NS_PER_MS), "ms"),
    }
    return values.get(goal, (0, ""))


def fix(case: Case) -> Iterator[RuleRow]:
    """each decision fixed by the instance holds for every replica that makes it"""
    asked, replicas = case.instance.fix, case.figures.replicas
    if asked.dp is not None:
        yield equal("fix", "plan", "dp is", len(replicas), asked.dp, "replicas")
    for replica in replicas:
        yield from _fixed_numbers(asked, replica)
        yield from _fixed_stages(asked, replica)


def _fixed_numbers(asked: Fix, replica: ReplicaFigures) -> Iterator[RuleRow]:
    if asked.pp is not None:
        stages = len(replica.stages)
        yield equal("fix", replica.label, "pp is", stages, asked.pp, "stages")
    for name, found, unit in _choices(replica):
        wanted = getattr(asked, name)
        if wanted is not None:
            yield equal("fix", replica.label, f"{name} is", found, wanted, unit)


def _choices(replica: ReplicaFigures) -> Iterator[tuple[str, int, str]]:
    """What is chosen of an operating point: the rest of it follows from the role."""
    point = replica.point
    if point.role != "prefill":
        yield "sequences", point.sequences, "sequences"
    if point.role != "decode":
        yield "prefill_chunk_tokens", point.chunk, "tokens"
    yield "micro_batches", point.micro_batches, "micro-batches"


def _fixed_stages(asked: Fix, replica: ReplicaFigures) -> Iterator[RuleRow]:
    for stage in replica.stages:
        yield from _fixed_shape(asked, stage)
    if asked.layers is None:
        return
    stages, wanted = len(replica.stages), len(asked.layers)
    yield equal("fix", replica.label, "stages of layers are", stages, wanted, "stages")
    for stage, layers in zip(replica.stages, asked.layers, strict=False):
        start, end = stage.stage.layers
        yield equal("fix", stage.label, "layers are", end - start, layers, "layer")


def _fixed_shape(asked: Fix, stage: StageFigures) -> Iterator[RuleRow]:
    for degree in ("tp", "attn_dp", "cp", "moe_tp", "ep", "moe_dp"):
        wanted = getattr(asked, degree)
        if wanted is not None:
            found = getattr(stage.stage.shape, degree)
            yield equal("fix", stage.label, f"{degree} is", found, wanted, "GPU")
    yield from _fixed_unit(asked, stage)


def _fixed_unit(asked: Fix, stage: StageFigures) -> Iterator[RuleRow]:
    unit, who = stage.stage.expert_unit, stage.label
    own = unit.gpus if unit is not None else 0
    if asked.afd is not None:
        attention, experts = asked.afd
        rest = len(stage.stage.gpus) - own
        yield equal("fix", who, "attention GPUs (afd) are", rest, attention, "GPU")
        yield equal("fix", who, "expert GPUs (afd) are", own, experts, "GPU")
    if asked.ping_pong is not None:
        parts = unit.ping_pong if unit is not None else 0
        yield equal("fix", who, "ping_pong is", parts, asked.ping_pong, "parts")


def grid(case: Case) -> Iterator[RuleRow]:
    """each chosen figure is in the grid's list, where given (degrees: unless fixed)"""
    for replica in case.figures.replicas:
        for name, found, unit in _choices(replica):
            allowed = getattr(case.instance.grid, name)
            yield from _listed(replica.label, name, found, allowed, unit)
    for stage in case.together():
        yield from _listed_degrees(case, stage)


def _listed(
    who: str, name: str, found: int, allowed: tuple[int, ...] | None, unit: str
) -> Iterator[RuleRow]:
    if allowed is None:
        return
    nearest = min(allowed, key=lambda value: abs(value - found), default=0)
    listed = f"the grid has {', '.join(map(str, allowed))}"
    words = f"{name} is"
    yield equal("grid", who, words, found, nearest, unit, detail=listed)


def _listed_degrees(case: Case, stage: StageFigures) -> Iterator[RuleRow]:
    """cp, and moe_dp with experts: without them it follows from cp."""
    grid, fixed, shape = case.instance.grid, case.instance.fix, stage.stage.shape
    if fixed.cp is None:
        allowed = grid.context_parallel
        yield from _listed(stage.label, "cp", shape.cp, allowed, "GPU")
    if fixed.moe_dp is None and has_experts(case.instance.model):
        yield from _listed(stage.label, "moe_dp", shape.moe_dp, grid.moe_dp, "GPU")


CLAIMS: tuple[Rule, ...] = (
    memory_parts,
    decode_time,
    prefill_time,
    tpot,
    ttft,
    prefill_latency,
    rate_claim,
    objective_value,
    fix,
    grid,
)
