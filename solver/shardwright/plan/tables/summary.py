"""The answer first: degrees, GPUs, objectives with their bounds, what binds."""

from __future__ import annotations

from shardwright.plan.balance import all_stages
from shardwright.plan.groups import (
    ReplicaGroup,
    degrees,
    has_experts,
    ranges,
    replica_words,
    split,
)
from shardwright.plan.tables.alternatives import alternatives_text
from shardwright.plan.tables.serving import against_ns, rate_sentence
from shardwright.plan.tables.text import (
    Cell,
    amount,
    cut,
    figures,
    grid,
    number,
    percent,
    signed_percent,
    wrapped,
)
from shardwright.plan.view import PlanView
from shardwright.schema.result import ObjectiveValue, Result


def summary_table(view: PlanView) -> str:
    """Headline, replicas, objectives, and one line each on what matters."""
    blocks = [
        headline(view),
        "\n".join(_replica_lines(view)),
        objectives_grid(view.result),
        "\n".join(_facts(view)),
        alternatives_text(view.result),
    ]
    return "\n\n".join(block for block in blocks if block)


def headline(view: PlanView) -> str:
    """Status, degrees and GPUs in one line."""
    total = view.metrics["total"]
    gpus = f"{total['gpus_used']} of {amount(total['gpus_available'], 'GPU')}"
    words = f"{plan_degrees(view)} on {gpus}"
    if view.result is None:
        return words
    return wrapped(f"{view.result.status.value}  ", f"{words}, {proof(view.result)}")


def plan_degrees(view: PlanView) -> str:
    """TP8 PP1 DP1, TP1 DP16 EP16 PP1 x 4, or the parts of several designs."""
    if len(view.groups) == 1:
        (group,) = view.groups
        count, words = len(group.indices), degrees(group.replica)
        # DP is a degree of attention where there are experts
        experts = has_experts(group.replica.stages)
        return f"{words} x {count}" if experts else f"{words} DP{count}"
    if len(view.groups) > _MOST_PARTS:
        count = len(view.document.replicas())
        return f"{count} replicas of {len(view.groups)} designs"
    several = len({s.gpu_type for s in all_stages(view.document)}) > 1
    return " + ".join(_part(group, several) for group in view.groups)


_MOST_PARTS = 3


def _part(group: ReplicaGroup, several_types: bool) -> str:
    """2 x TP4 PP1, with the GPU types where a plan uses several."""
    types = "+".join(dict.fromkeys(s.gpu_type for s in group.replica.stages))
    where = f" ({types})" if several_types else ""
    count, words = len(group.indices), degrees(group.replica)
    if has_experts(group.replica.stages):
        return f"{words} x {count}{where}"
    return f"{count} x {words}{where}"


def proof(result: Result) -> str:
    """How the answer was ended: proven, or the gap and what stopped the search."""
    seconds = f"{result.solve_seconds:.2f} s"
    if result.stopped_by == "proof":
        return f"proven in {seconds}"
    gap = "no bound" if result.gap is None else f"gap {percent(result.gap, 2)}"
    why = {
        "gap": "within the gap asked for",
        "time": "time limit",
        "memory": "memory limit",
        "user": "interrupted",
        "error": "error",
    }[result.stopped_by]
    return f"{gap}, {why} after {seconds}"


def _replica_lines(view: PlanView) -> list[str]:
    lines = [_replica_line(group) for group in view.groups[:_MOST_GROUPS]]
    if len(view.groups) > _MOST_GROUPS:
        rest = amount(len(view.groups) - _MOST_GROUPS, "further design")
        lines.append(f"and {rest}: see the table throughput")
    return lines


def _replica_line(group: ReplicaGroup) -> str:
    point, replica = group.replica.operating_point, group.replica
    several, each = ("replicas", " each") if len(group.indices) > 1 else ("replica", "")
    q = point.micro_batches
    batches = f"{q} micro-batch{'es' if q > 1 else ''}"
    if point.micro_batch_sequences:
        batches += f" of {point.micro_batch_sequences}"
    chunk = f", prefill chunk {number(point.prefill_chunk_tokens)}"
    slots = max(stage.expert_slots for stage in replica.stages)
    experts = f", {amount(slots, 'expert')} per GPU and layer" if slots else ""
    words = (
        f"{replica_words(replica)}{each}, {degrees(replica)}{experts}, "
        f"layers {split(replica)}; "
        f"{amount(point.sequences, 'sequence')} in {batches}"
        + (chunk if point.prefill_chunk_tokens else "")
    )
    return wrapped(f"{several} {group.label}: ", words)


_MOST_GROUPS = 8


def objectives_grid(result: Result | None) -> str:
    """Value and proven bound of every goal, in order."""
    goals = result.objectives if result is not None else ()
    if all(goal.value is None and goal.bound is None for goal in goals):
        return ""
    rows = [_objective_row(goal) for goal in goals]
    return grid(["objective", "value", "bound", "gap", "unit"], rows, "lrrrl")


def _objective_row(goal: ObjectiveValue) -> list[Cell]:
    return [
        goal.name,
        _figure(goal.value),
        _figure(goal.bound),
        _gap(goal),
        goal.unit,
    ]


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return number(value) if float(value).is_integer() else number(value, 3)


def _gap(goal: ObjectiveValue) -> str:
    if goal.value is None or goal.bound is None:
        return "-"
    if goal.value == goal.bound:
        return "0"
    return percent(abs(goal.bound - goal.value) / max(abs(goal.bound), 1e-12), 3)


def _facts(view: PlanView) -> list[str]:
    total = view.metrics["total"]
    loaded = any(r.load for r in view.document.replicas())
    latency = (
        f"TTFT {figures(total['ttft_ms'])} ms, prefill {figures(total['prefill_ms'])} "
        f"ms, TPOT {figures(total['tpot_ms'])} ms, end to end "
        f"{figures(total['e2e_ms'])} ms "
        + ("(means with every slot taken)" if loaded else "(means)")
    )
    rate = rate_sentence(view) or (
        f"Request rate sustained: {cut(total['requests_per_s'], 3)}/s"
    )
    facts = [rate, *_percentile_facts(view), latency]
    facts += [*_requirement_facts(view), *_launch_facts(view)]
    if view.idle:
        facts.append(f"{amount(len(view.idle), 'GPU')} not used: see the table idle")
    return [wrapped("", fact) for fact in facts]


def _percentile_facts(view: PlanView) -> list[str]:
    """Every percentile asked for, as predicted at the load of the plan."""
    targets = [t for t in view.instance.slo if t.percentile != "mean"]
    found = [
        f"{target.metric.upper() if target.metric != 'prefill' else 'prefill'} "
        f"P{target.percentile:g} {figures(against_ns(view, target) / 1e6)} "
        f"<= {number(target.limit_ms)} ms"
        for target in targets
    ]
    return [f"Predicted under load: {', '.join(found)}"] if found else []


def _requirement_facts(view: PlanView) -> list[str]:
    found = view.requirements
    if not found:
        return []
    broken = [r for r in found if not r.holds]
    if broken:
        names = ", ".join(dict.fromkeys(r.rule for r in broken))
        return [f"{len(broken)} of {len(found)} requirements BROKEN: {names}"]
    slacks = [(r.relative_slack, r.rule) for r in found if r.tightest.unit in _BINDING]
    numbers = sorted((s, rule) for s, rule in slacks if s is not None)
    closest = ""
    if numbers:
        closest = f"; tightest: {numbers[0][1]} ({signed_percent(numbers[0][0])} slack)"
    return [f"All {len(found)} requirements hold{closest}"]


_BINDING = ("ns", "mtok/s", "B", "share", "micro-USD/h")


def _launch_facts(view: PlanView) -> list[str]:
    able = [v.engine for v in view.engines if v.launchable]
    facts = [f"Launchable with {', '.join(able)}"] if able else []
    if view.document.expert_map and "vllm" in able:
        facts.append("vllm takes no expert map: its EPLB makes its own at run time")
    reasons: dict[str, list[str]] = {}
    for verdict in view.engines:
        for rule in dict.fromkeys(o.rule for o in verdict.obstacles):
            first = next(o for o in verdict.obstacles if o.rule == rule)
            hit = {o.replica for o in verdict.obstacles if o.rule == rule}
            text = f"{rule} (replica {ranges(sorted(hit))}: {first.why})"
            reasons.setdefault(text, []).append(verdict.engine)
    for text, engines in reasons.items():
        facts.append(f"Not launchable with {', '.join(engines)}: {text}")
    return facts
