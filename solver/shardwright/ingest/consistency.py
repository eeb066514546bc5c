"""Rules between the parts of an instance: what no single field can know."""

from __future__ import annotations

from collections.abc import Iterator

from shardwright.ingest.refuse import nearest, one_of
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.errors import FieldError
from shardwright.schema.instance import Instance
from shardwright.schema.model import MlaAttention, MoeFfn
from shardwright.schema.workload import BYTES_PER_PARAMETER


def consistency_errors(instance: Instance) -> list[FieldError]:
    """Every contradiction between fields, with the field that should change."""
    return [
        *_context(instance),
        *_gpu_figures(instance),
        *_prices(instance),
        *_fixed_layers(instance),
        *_fixed_degrees(instance),
        *_survival(instance),
        *_disaggregated(instance),
        *_context_parallel(instance),
    ]


def _survival(instance: Instance) -> Iterator[FieldError]:
    """What survives is a share of the request rate, served by replicas on their own."""
    if not instance.limits.survive:
        return
    if instance.workload.request_rate_per_s is None:
        yield FieldError(
            "workload.request_rate_per_s",
            "nothing",
            "a rate: limits.survive keeps a share of it",
        )
    if instance.pools != "mixed":
        yield FieldError("pools", instance.pools, "mixed, with limits.survive")


def _context(instance: Instance) -> Iterator[FieldError]:
    workload, model = instance.workload, instance.model
    at, room = "workload.max_context_tokens", workload.max_context_tokens
    prompt = workload.input_tokens.mean_tokens()
    answer = workload.output_tokens.mean_tokens()
    if prompt + answer > room:
        need = f"{prompt:.10g} input and {answer:.10g} output tokens of a request"
        yield FieldError(at, str(room), f"at least the {need} (means where they vary)")
    longest = model.max_position_tokens
    if longest is not None and room > longest:
        allowed = f"at most the {longest} positions of {model.name}"
        yield FieldError(at, str(room), allowed)


def _used_types(instance: Instance) -> dict[str, GpuSpec]:
    used = sorted({group.gpu for group in instance.cluster.nodes})
    return {name: instance.cluster.gpu_types[name] for name in used}


def _gpu_figures(instance: Instance) -> Iterator[FieldError]:
    """The formats that are computed in need a peak rate and an efficiency.

    Weights in a format that the GPU does not compute are unpacked to the
    activations' format (weight-only quantisation).
    """
    precision = instance.precision
    for name, spec in instance.cluster.gpu_types.items():
        yield from _unknown_dtypes(name, spec)
    for name, spec in _used_types(instance).items():
        at = f"cluster.gpu_types.{name}"
        if precision.activations not in spec.dense_tflops:
            yield FieldError(
                f"{at}.dense_tflops",
                _keys(spec.dense_tflops),
                f"{precision.activations} is needed (precision.activations)",
            )
        native = {precision.weights} & spec.dense_tflops.keys()
        for dtype in sorted(native | {precision.activations}):
            if dtype not in spec.calibration.matmul_efficiency:
                yield FieldError(
                    f"{at}.calibration.matmul_efficiency",
                    _keys(spec.calibration.matmul_efficiency),
                    f"{dtype} is needed (precision)",
                )


def _keys(mapping: dict[str, float]) -> str:
    return ", ".join(sorted(mapping)) or "nothing"


def _unknown_dtypes(name: str, spec: GpuSpec) -> Iterator[FieldError]:
    tables = {
        "dense_tflops": spec.dense_tflops,
        "calibration.matmul_efficiency": spec.calibration.matmul_efficiency,
    }
    for table, mapping in tables.items():
        for dtype in sorted(mapping.keys() - BYTES_PER_PARAMETER.keys()):
            hint = nearest(dtype, BYTES_PER_PARAMETER)
            yield FieldError(
                f"cluster.gpu_types.{name}.{table}.{dtype}",
                str(mapping[dtype]),
                hint + one_of(BYTES_PER_PARAMETER),
            )


def _prices(instance: Instance) -> Iterator[FieldError]:
    if instance.limits.max_cost_usd_per_hour is not None:
        reason = "limits.max_cost_usd_per_hour"
    elif "cost" in instance.goals():
        reason = "the goal cost"
    else:
        return
    for name, spec in _used_types(instance).items():
        if spec.price_usd_per_hour is None:
            at = f"cluster.gpu_types.{name}.price_usd_per_hour"
            yield FieldError(at, "nothing", f"a price is needed for {reason}")


def _fixed_layers(instance: Instance) -> Iterator[FieldError]:
    fix, layers = instance.fix, len(instance.model.layers)
    if fix.layers is not None and sum(fix.layers) != layers:
        found = f"{sum(fix.layers)} layers in {len(fix.layers)} stages"
        yield FieldError("fix.layers", found, f"they add up to {layers} layers")
    if fix.layers is not None and fix.pp is not None and len(fix.layers) != fix.pp:
        found = f"{len(fix.layers)} stages"
        yield FieldError("fix.layers", found, f"one entry per stage (fix.pp {fix.pp})")


def _fixed_degrees(instance: Instance) -> Iterator[FieldError]:
    fix, limits, workload = instance.fix, instance.limits, instance.workload
    stages = fix.pp or (len(fix.layers) if fix.layers else None)
    at = "fix.pp" if fix.pp else "fix.layers"
    for path, value, most, reason in (
        (at, stages, len(instance.model.layers), "layers of the model"),
        (at, stages, limits.max_pipeline_stages, "limits.max_pipeline_stages"),
        ("fix.tp", fix.tp, limits.max_tensor_parallel, "limits.max_tensor_parallel"),
        ("fix.sequences", fix.sequences, workload.max_batch, "workload.max_batch"),
    ):
        if value is not None and most is not None and value > most:
            yield FieldError(path, str(value), f"at most {most} ({reason})")


def _disaggregated(instance: Instance) -> Iterator[FieldError]:
    """Disaggregated stages need routed experts, and an engine that has them."""
    fix, engine = instance.fix, instance.engine
    asked = [name for name in ("afd", "ping_pong") if getattr(fix, name) is not None]
    if not asked:
        return
    path, value = f"fix.{asked[0]}", getattr(fix, asked[0])
    found = "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if not any(isinstance(k.ffn, MoeFfn) for k in instance.model.layer_kinds):
        yield FieldError(path, found, "a model with routed experts")
    allowed = engine.rules.disaggregated_experts
    if not (engine.name == "generic" if allowed is None else allowed):
        words = "engine.rules.disaggregated_experts: true, or the engine generic"
        yield FieldError(path, f"{found} with {engine.name}", words)
    if engine.latencies != "analytic":
        words = "engine.latencies: analytic, such stages are not measured"
        yield FieldError(path, f"{found} with {engine.latencies} latencies", words)
    if fix.afd is None:
        return
    for name, total in zip(
        ("tp", "attn_dp", "moe_tp", "ep"), _doubled(fix.afd), strict=True
    ):
        degree = getattr(fix, name)
        if degree is not None and total % degree:
            yield FieldError(f"fix.{name}", str(degree), f"a divisor of {total} (afd)")


def _context_parallel(instance: Instance) -> Iterator[FieldError]:
    """Rule context_parallel, and SGLang's rules of copies of experts."""
    fix, grid, name = instance.fix, instance.grid, instance.engine.name
    for path, value in (
        ("fix.cp", fix.cp or 1),
        ("grid.context_parallel", max(grid.context_parallel or (1,))),
    ):
        allowed = context_refusal(instance)
        if value > 1 and allowed is not None:
            yield FieldError(path, f"{value} with {name}", allowed)
    copies = fix.moe_dp or 1
    if copies == 1:
        return
    found = f"{copies} with {name}"
    if name not in ("generic", "sglang"):
        yield FieldError(
            "fix.moe_dp", found, "1, or one of the engines that copy experts"
        )
    if name == "sglang" and fix.pp is not None and fix.pp > 1:
        yield FieldError(
            "fix.moe_dp", f"{found} on {fix.pp} stages", "one stage (pp 1)"
        )
    if name == "sglang" and fix.cp is not None and fix.cp != copies:
        yield FieldError("fix.moe_dp", found, f"1 or {fix.cp} (cp)")


def context_refusal(instance: Instance) -> str | None:
    """What cp may be where an engine has no context parallelism; None: it has.

    docs/cost-model.md section 14.
    """
    engine = instance.engine
    kinds = [k.attention for k in instance.model.layer_kinds if k.attention is not None]
    if engine.latencies != "analytic":
        return "1 with measured latencies, which do not have context parallelism"
    if engine.name == "trtllm":
        return "1; its context parallelism (Helix) is of generation servers alone"
    if engine.name == "vllm" and not all(isinstance(a, MlaAttention) for a in kinds):
        return "1 unless all attention is latent (MLA); no other backend starts"
    mixture = any(isinstance(k.ffn, MoeFfn) for k in instance.model.layer_kinds)
    if engine.name == "sglang" and not mixture:
        return "1 for dense models, whose classes do not have it"
    if engine.name == "sglang" and _amd_types(instance):
        return "1 on AMD GPUs, where its prefill context parallelism is refused"
    return None


def _amd_types(instance: Instance) -> list[str]:
    cluster = instance.cluster
    used = {group.gpu for group in cluster.nodes}
    return [name for name in used if cluster.gpu_types[name].vendor == "AMD"]


def _doubled(pair: tuple[int, int]) -> tuple[int, int, int, int]:
    """Attention GPUs for its two degrees, expert GPUs for theirs."""
    return pair[0], pair[0], pair[1], pair[1]
