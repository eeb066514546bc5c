"""What was asked and what is run: hardware, model, targets; degrees and settings."""

from __future__ import annotations

from shardwright.cost.memory import ONLY, stage_weight_bytes
from shardwright.cost.shape import StageShape
from shardwright.ingest.parameters import parameter_counts
from shardwright.plan.groups import (
    ReplicaGroup,
    degrees,
    grouped,
    has_experts,
    replica_words,
    split,
)
from shardwright.plan.launch import context_flags
from shardwright.plan.tables.text import (
    amount,
    gb,
    number,
    pairs,
    percent,
    short,
    titled,
)
from shardwright.plan.view import PlanView
from shardwright.problem import mixtures
from shardwright.schema.instance import Instance
from shardwright.schema.model import MlaAttention, ModelSpec
from shardwright.schema.workload import Lengths


def inputs_table(view: PlanView) -> str:
    """The instance in short."""
    instance = view.instance
    return titled(
        "What was asked",
        pairs(_hardware(instance)),
        pairs(_model(view)),
        pairs(_work(instance)),
    )


def _hardware(instance: Instance) -> list[tuple[str, str]]:
    rows = []
    for group in instance.cluster.nodes:
        gpu = instance.cluster.gpu_types[group.gpu]
        rows.append(
            (
                f"{short(group.name, 20)} ({amount(group.count, 'node')})",
                f"{group.gpus} {group.gpu} each, islands of "
                f"{'up to ' if group.islands else ''}"
                f"{instance.cluster.island_size(group)}, {gb(gpu.memory_bytes)} GB at "
                f"{number(gpu.hbm_gbyte_per_s)} GB/s, {gpu.link_technology} "
                f"{number(gpu.link_gbyte_per_s)} GB/s per direction, network "
                f"{number(gpu.network_gbyte_per_s, 1)} GB/s",
            )
        )
    return rows


def _model(view: PlanView) -> list[tuple[str, str]]:
    model, memory = view.instance.model, view.anatomy.memory
    precision = view.instance.precision
    rest = stage_weight_bytes(model, precision, 1, ONLY)
    weights, _ = memory.layer_bytes(StageShape.dense(1), 0, len(model.layers), 1)
    kinds = ", ".join(
        f"{n} x {model.layer_kinds[k].name}"
        for k, n in memory.kind_counts(0, len(model.layers)).items()
    )
    attention = next((k.attention for k in model.layer_kinds if k.attention), None)
    heads = "-"
    if isinstance(attention, MlaAttention):
        heads = f"{attention.heads} (latent of {attention.latent_width} per token)"
    elif attention is not None:
        heads = f"{attention.heads} ({attention.kv_heads} KV heads)"
    return [
        ("model", model.name),
        ("layers", f"{len(model.layers)} ({kinds})"),
        ("hidden, heads", f"{number(model.hidden)}, {heads}"),
        ("vocabulary", number(model.vocabulary)),
        *_experts(model),
        (
            "weights of layers",
            f"{gb(weights)} GB in {precision.weights}, "
            f"{gb(weights / len(model.layers), 3)} GB per layer in the mean",
        ),
        ("weights in all", f"{gb(weights + rest)} GB with embedding and LM head"),
    ]


def _experts(model: ModelSpec) -> list[tuple[str, str]]:
    """Experts of every mixture, and parameters in all and per token."""
    mixed = {(e.experts, e.top_k, e.shared_experts): e for e in mixtures(model)}
    if not mixed:
        return []
    words = ", ".join(
        f"{experts} per layer, top-{top_k} of width {number(e.intermediate)}"
        + (f" and {amount(shared, 'shared expert')}" if shared else "")
        for (experts, top_k, shared), e in mixed.items()
    )
    counts = parameter_counts(model)
    total, active = (f"{n / 1e9:,.2f}B" for n in (counts.total, counts.active))
    return [("experts", words), ("parameters", f"{total}, {active} active per token")]


def _work(instance: Instance) -> list[tuple[str, str]]:
    work, limits = instance.workload, instance.limits
    rate = work.request_rate_per_s
    targets = [
        f"{t.metric} {'mean' if t.percentile == 'mean' else f'P{t.percentile:g}'} "
        f"{t.limit_ms:g} ms"
        for t in instance.slo
    ]
    return [
        ("request rate", "not given" if rate is None else f"{rate:g}/s"),
        ("input, output", f"{_law(work.input_tokens)}; {_law(work.output_tokens)}"),
        ("max batch, context", f"{work.max_batch}, {number(work.max_context_tokens)}"),
        ("targets", ", ".join(targets) or "none"),
        ("memory fraction", percent(limits.memory_fraction)),
        ("objective", ", then ".join(instance.goals())),
    ]


def _law(law: Lengths) -> str:
    if law.constant is not None:
        return f"{number(law.constant)} tokens"
    if law.mean is not None:
        return f"{number(law.mean)} tokens in the mean (cv {law.cv:g})"
    return f"a histogram of {len(law.histogram or ())} lengths"


def parallelism_table(view: PlanView) -> str:
    """Degrees and runtime parameters of every distinct replica."""
    blocks = []
    for group in view.groups:
        point, stages = group.replica.operating_point, group.replica.stages
        blocks.append(
            pairs(
                [
                    (
                        "replicas" if has_experts(stages) else "replicas (DP)",
                        f"{len(group.indices)}: number {group.label}",
                    ),
                    *_degrees(group, view.instance.engine.name),
                    ("GPUs", replica_words(group.replica)),
                    ("layers per stage", split(group.replica)),
                    ("max sequences", number(point.sequences)),
                    (
                        "micro-batches",
                        f"{point.micro_batches} of {point.micro_batch_sequences}",
                    ),
                    ("prefill chunk", f"{number(point.prefill_chunk_tokens)} tokens"),
                ]
            )
        )
    settings = pairs(
        [
            ("engine", view.instance.engine.name),
            *_latencies(view.instance),
            ("max context", f"{number(view.instance.workload.max_context_tokens)}"),
            ("precision", _precision(view.instance)),
            ("memory cap", _caps(view)),
        ]
    )
    return titled("Parallelism and runtime parameters", *blocks, settings)


def _latencies(instance: Instance) -> list[tuple[str, str]]:
    """Said only where iteration times are not the cost model's."""
    if instance.engine.latencies == "analytic":
        return []
    return [("latencies", "measured tables (versions of the result name them)")]


def _degrees(group: ReplicaGroup, engine: str) -> list[tuple[str, str]]:
    """Degrees in one line; with experts also what each of them is."""
    stages = group.replica.stages
    rows = [("degrees", degrees(group.replica))]
    if grouped(stages):
        parts = "+".join(dict.fromkeys(str(s.shape.cp) for s in stages))
        rows.append(("context parallel", f"{parts} ranks share each sequence"))
        shape, experts = stages[0].shape, has_experts(stages)
        rows += [
            ("flag" if i else f"flags of {engine}", flag)
            for i, flag in enumerate(context_flags(engine, shape, experts))
        ]
    if not has_experts(stages):
        return rows
    names = {
        "tp": "attention TP",
        "attn_dp": "attention DP",
        "ep": "expert parallel",
        "moe_tp": "MoE-TP",
    }
    if max(s.shape.moe_dp for s in stages) > 1:
        names["moe_dp"] = "MoE-DP"
    rows += [
        (name, "+".join(dict.fromkeys(str(getattr(s.shape, field)) for s in stages)))
        for field, name in names.items()
    ]
    slots = "+".join(dict.fromkeys(str(s.expert_slots) for s in stages))
    return [*rows, ("experts per GPU", f"{slots} of every MoE layer")]


def _precision(instance: Instance) -> str:
    p = instance.precision
    return f"weights {p.weights}, KV cache {p.kv_cache}, activations {p.activations}"


def _caps(view: PlanView) -> str:
    stages = [s for group in view.groups for s in group.replica.stages]
    caps = {s.gpu_type: view.anatomy.usable_bytes(s) for s in stages}
    return ", ".join(f"{gb(cap)} GB per {name}" for name, cap in caps.items())
