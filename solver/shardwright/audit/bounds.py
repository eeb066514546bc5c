"""Latencies and rates against what physics allows; predictions are estimates."""

from __future__ import annotations

from fractions import Fraction

from shardwright.audit.case import Case
from shardwright.audit.evidence import Evidence, Reading, Undecidable
from shardwright.audit.figures import gpu_type, mixtures, number, weight_bytes
from shardwright.audit.layout import plan_gpus, stage_gpus
from shardwright.audit.solved import estimates
from shardwright.cost.lengths import exact
from shardwright.ingest.parameters import parameter_counts
from shardwright.schema.claims import FlopClaim, PerformanceClaim
from shardwright.schema.instance import Instance
from shardwright.schema.printed import COUNT, FLOP, RATE, SECOND, Dimension
from shardwright.schema.strategy_name import Strategy, parse_strategy

_DIMENSIONS: dict[str, Dimension] = {
    "prefill": SECOND,
    "ttft": SECOND,
    "tpot": SECOND,
    "requests_per_s": RATE,
    "output_tokens_per_s": RATE,
    "tokens_per_s": RATE,
    "tokens_per_s_per_gpu": RATE,
    "communication_share": COUNT,
    "compute_imbalance": COUNT,
    "utilisation": COUNT,
}
_ESTIMATES = {
    "prefill": ("prefill_ms", "ms", 1.0),
    "ttft": ("ttft_ms", "ms", 1.0),
    "tpot": ("tpot_ms", "ms", 1.0),
    "requests_per_s": ("requests_per_s", "requests/s", 1.0),
    "output_tokens_per_s": ("output_tokens_per_s", "output tokens/s", 1.0),
    "communication_share": ("communication_share", "% of a pass", 100.0),
    "compute_imbalance": ("compute_imbalance", "%", 100.0),
}


def performance(case: Case, claim: PerformanceClaim) -> Evidence:
    """The bound that a claim must respect, and an estimate beside it."""
    strategy = parse_strategy(claim.strategy)
    estimate = _estimate(case, strategy, claim.metric)
    dimension = _DIMENSIONS[claim.metric]
    if claim.metric == "tpot":
        bound, text, needs = tpot_bound(case.instance, strategy)
        return Evidence(
            dimension, text, needs=needs, bound=(">=", bound), estimate=estimate
        )
    if claim.metric in ("prefill", "ttft"):
        return _prefill(case, claim, strategy, estimate)
    if claim.metric == "requests_per_s":
        return _request_rate(case, claim, strategy, estimate)
    if claim.metric == "output_tokens_per_s":
        most, text, needs = _token_bound(case.instance, strategy)
        return Evidence(
            dimension, text, needs=needs, bound=("<=", most), estimate=estimate
        )
    if claim.metric == "tokens_per_s_per_gpu":
        return _tokens_of_gpu(case, strategy)
    if claim.metric == "tokens_per_s":
        _, text, _ = _token_bound(case.instance, strategy)
        missing = f"whether prompt tokens count; output tokens alone: {text}"
        raise Undecidable(missing + (f"; {estimate}" if estimate else ""))
    missing = "how it was measured, and under what load"
    raise Undecidable(missing + (f"; {estimate}" if estimate else ""))


def _estimate(case: Case, strategy: Strategy, metric: str) -> str:
    if metric not in _ESTIMATES:
        return ""
    name, unit, scale = _ESTIMATES[metric]
    found = estimates(case, strategy).get(name)
    if found is None:
        return ""
    glue = "" if unit.startswith("%") else " "
    return f"cost model's estimate {float(found) * scale:,.4g}{glue}{unit}"


def _experts_need(instance: Instance) -> frozenset[str]:
    return frozenset({"widths", "routing"} if mixtures(instance) else ())


def tpot_bound(
    instance: Instance, strategy: Strategy
) -> tuple[Fraction, str, frozenset[str]]:
    """Seconds: a token passes every stage in turn, and each stage reads the weights
    that one token uses once, from the memory of all its GPUs."""
    model, gpu = instance.model, gpu_type(instance)
    size = parameter_counts(model).active * weight_bytes(instance)
    gpus = _stage_gpus(strategy)
    speed = exact(gpu.hbm_gbyte_per_s) * 10**9
    bound = size / (gpus * speed)
    text = (
        f"at least {float(bound) * 1e3:.4g} ms: a token passes all stages one after "
        f"another, and its {float(size) / 1e9:.4g} GB of weights are read by {gpus} "
        f"GPUs of a stage at {float(speed) / 1e12:.4g} TB/s each"
    )
    needs = frozenset({"hbm", "formats"}) | _experts_need(instance)
    return bound, text, needs


def _stage_gpus(strategy: Strategy) -> int:
    """GPUs of a stage, as many as any layout gives it."""
    layouts = ("shared", "multiplied", "separate")
    return max(stage_gpus(strategy, layout) or 1 for layout in layouts)


def _gpus(strategy: Strategy) -> int:
    layouts = ("shared", "multiplied", "separate")
    return max(plan_gpus(strategy, layout) or 1 for layout in layouts)


def prompt_flop(instance: Instance) -> int:
    """FLOP of a prompt token at least: two per active weight, LM head and attention
    scores left out."""
    counts = parameter_counts(instance.model)
    return 2 * (counts.active - counts.lm_head)


def _computed(instance: Instance) -> Fraction:
    """Share of prompt tokens that no prefix cache has."""
    return 1 - exact(instance.workload.prefix_cache_hit_ratio)


def _prefill(
    case: Case, claim: PerformanceClaim, strategy: Strategy, estimate: str
) -> Evidence:
    instance = case.instance
    needs = {"compute"} | _experts_need(instance)
    if claim.tokens is None:
        tokens, needs = number(instance, "input_tokens"), {*needs, "input_tokens"}
    else:
        tokens = case.sized(claim, "tokens", claim.tokens, COUNT)
    peak, gpus = number(instance, "gpu_compute"), _gpus(strategy)
    bound = prompt_flop(instance) * tokens * _computed(instance) / (gpus * peak)
    text = (
        f"at least {float(bound) * 1e3:.3g} ms: {float(tokens):,.0f} tokens x "
        f"{prompt_flop(instance) / 1e9:.4g} GFLOP on {gpus} GPUs of "
        f"{float(peak) / 1e12:g} TFLOP/s"
    )
    return Evidence(
        SECOND, text, needs=frozenset(needs), bound=(">=", bound), estimate=estimate
    )


def _request_rate(
    case: Case, claim: PerformanceClaim, strategy: Strategy, estimate: str
) -> Evidence:
    instance = case.instance
    needs = {"compute", "input_tokens"} | _experts_need(instance)
    tokens, gpus = number(instance, "input_tokens"), _gpus(strategy)
    if claim.tokens is not None:
        tokens = case.sized(claim, "tokens", claim.tokens, COUNT)
        needs.discard("input_tokens")
    peak = number(instance, "gpu_compute")
    most = gpus * peak / (prompt_flop(instance) * tokens * _computed(instance))
    text = (
        f"at most {float(most):.3g}/s by the prompts' FLOP alone "
        f"({float(tokens):,.0f} tokens each, {gpus} GPUs at "
        f"{float(peak) / 1e12:g} TFLOP/s)"
    )
    return Evidence(
        RATE, text, needs=frozenset(needs), bound=("<=", most), estimate=estimate
    )


def _tokens_of_gpu(case: Case, strategy: Strategy) -> Evidence:
    """Prompt and output tokens of one GPU: its FLOP over those of a token."""
    instance = case.instance
    peak, each = number(instance, "gpu_compute"), prompt_flop(instance)
    text = (
        f"at most {float(peak / each):,.0f}/s: {float(peak) / 1e12:g} TFLOP/s / "
        f"{each / 1e9:.4g} GFLOP a token"
    )
    total = estimates(case, strategy)
    estimate = ""
    if total:
        tokens = total["output_tokens_per_s"] + total["prompt_tokens_per_s"]
        each_gpu = tokens / total["gpus_used"]
        estimate = f"cost model's estimate {each_gpu:,.4g} tokens/s a GPU"
    needs = frozenset({"compute"}) | _experts_need(instance)
    return Evidence(
        RATE, text, needs=needs, bound=("<=", peak / each), estimate=estimate
    )


def flop(case: Case, claim: FlopClaim) -> Evidence:
    """Two FLOP for every weight that a token uses."""
    instance = case.instance
    needs = frozenset({"parameters"}) | _experts_need(instance)
    if claim.of == "model":
        used = parameter_counts(instance.model).active
        text = f"2 x {used:,} active parameters"
        return Evidence(FLOP, text, (Reading(Fraction(2 * used)),), needs)
    ffns, hidden = mixtures(instance), instance.model.hidden
    if not ffns:
        raise Undecidable("experts: the model has none")
    used = sum(f.matrices * hidden * f.intermediate * f.top_k for f in ffns)
    text = f"2 x {used:,} parameters of the chosen experts of {len(ffns)} layers"
    return Evidence(FLOP, text, (Reading(Fraction(2 * used)),), needs)


def _token_bound(
    instance: Instance, strategy: Strategy
) -> tuple[Fraction, str, frozenset[str]]:
    """Output tokens/s: every resident sequence yields one token per pass at best."""
    least, text, needs = tpot_bound(instance, strategy)
    replicas, batch = strategy.degree("dp"), number(instance, "max_batch")
    most = replicas * batch / least
    text = f"at most {float(most):,.0f}/s: {replicas * batch} sequences, each {text}"
    return most, text, needs | {"max_batch"}
