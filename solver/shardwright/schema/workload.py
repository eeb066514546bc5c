"""Workload, SLOs, limits, precision, engine, objective: what is asked of the plan."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from shardwright.schema.base import (
    Count,
    Document,
    Index,
    NonNegative,
    Positive,
    Share,
    Size,
    Tokens,
    Tolerance,
    without_new,
)


class Lengths(Document):
    """Distribution of a length in tokens: constant, lognormal, or a histogram.

    Exactly one of ``constant``, ``mean`` (with ``cv``, the coefficient of variation
    of a lognormal law) and ``histogram`` (pairs of tokens and weight) is given.
    """

    constant: Tokens | None = None
    mean: Annotated[Positive, Field(ge=1, le=1e8)] | None = None
    cv: Annotated[NonNegative, Field(le=100)] | None = None
    histogram: (
        Annotated[tuple[tuple[Tokens, Positive], ...], Field(min_length=1)] | None
    ) = None

    def mean_tokens(self) -> float:
        """The mean length."""
        if self.histogram is not None:
            weight = sum(w for _, w in self.histogram)
            return sum(tokens * w for tokens, w in self.histogram) / weight
        return float(self.constant or self.mean or 0)

    @model_validator(mode="after")
    def _one_form(self) -> Lengths:
        given = [
            f for f in ("constant", "mean", "histogram") if getattr(self, f) is not None
        ]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of constant, mean, histogram is needed; found {given}"
            )
        if (self.cv is not None) != (self.mean is not None):
            raise ValueError("mean and cv belong together")
        return self


class ExpertLoads(Document):
    """Tokens that each expert received, one row per MoE layer in order."""

    tokens: Annotated[
        tuple[Annotated[tuple[NonNegative, ...], Field(min_length=1)], ...],
        Field(min_length=1, max_length=2000),
    ]

    @model_validator(mode="after")
    def _table(self) -> ExpertLoads:
        widths = {len(row) for row in self.tokens}
        if len(widths) > 1:
            raise ValueError(f"rows have different lengths: {sorted(widths)}")
        if any(not sum(row) for row in self.tokens):
            raise ValueError("a row without any token says nothing about its experts")
        return self


class Arrivals(Document):
    """How requests come: ``ca2`` is the squared cv of the time between two of them.

    1 is a Poisson stream, less is smoother, more comes in bursts (gamma between them).
    """

    law: Literal["poisson", "gamma"] = "poisson"
    ca2: Annotated[Positive, Field(le=1000)] = 1.0

    @model_validator(mode="after")
    def _poisson_is_one(self) -> Arrivals:
        if self.law == "poisson" and self.ca2 != 1.0:
            raise ValueError(f"a poisson law has ca2 1; found {self.ca2:g}, use gamma")
        return self


class Workload(Document):
    """Requests and the engine's room for them.

    ``max_batch`` bounds the sequences resident in one replica (max-num-seqs).
    ``expert_loads`` makes the expert map and its balance part of the plan.
    ``kv_reserve`` p99 keeps room for the 99th percentile of the resident tokens,
    max_context for every sequence at full context.
    """

    request_rate_per_s: Positive | None = None
    arrivals: Arrivals = Arrivals()
    input_tokens: Lengths
    output_tokens: Lengths
    max_batch: Annotated[int, Field(ge=1, le=65_536)] = 256
    max_context_tokens: Tokens
    kv_reserve: Literal["p99", "max_context"] = "p99"
    expert_loads: ExpertLoads | None = None
    prefix_cache_hit_ratio: Annotated[NonNegative, Field(lt=1)] = 0.0


LatencyMetric = Literal["ttft", "prefill", "tpot", "itl", "e2e"]


class SloTarget(Document):
    """An upper limit on one latency at one percentile (or on the mean)."""

    metric: LatencyMetric
    percentile: Annotated[Positive, Field(lt=100)] | Literal["mean"] = "mean"
    limit_ms: Positive


class Survive(Document):
    """The plan goes on after losing any ``gpus`` GPUs or any ``nodes`` nodes.

    Replicas that are hit stop; the others serve at least ``load`` of the request rate.
    """

    gpus: Annotated[int, Field(ge=1, le=64)] | None = None
    nodes: Annotated[int, Field(ge=1, le=64)] | None = None
    load: Share = 1.0

    @model_validator(mode="after")
    def _one_kind(self) -> Survive:
        if (self.gpus is None) == (self.nodes is None):
            raise ValueError("exactly one of gpus and nodes is needed")
        return self


class Limits(Document):
    """Bounds on resources and balance; see docs/rules.md for every rule.

    Predicted TPOT and ITL stay below their limits by ``latency_margin``, as
    predicted * (1 + margin) <= limit; a file that gives none gets the one with which
    plans kept their limits in published runs (docs/fidelity.md).
    """

    memory_fraction: Share = 0.9
    latency_margin: Annotated[NonNegative, Field(le=1)] | None = None
    reserve_per_gpu_bytes: Size = Field(alias="reserve_per_gpu", default=0)
    memory_imbalance: Tolerance | None = None
    compute_imbalance: Tolerance | None = None
    communication_share: Share | None = None
    spare_gpus: Index = 0
    survive: Annotated[tuple[Survive, ...], Field(max_length=8)] = ()
    max_gpus: Count | None = None
    max_cost_usd_per_hour: Positive | None = None
    max_pipeline_stages: Annotated[int, Field(ge=1, le=256)] = 16
    max_tensor_parallel: Annotated[int, Field(ge=1, le=1024)] | None = None


DType = Literal["bf16", "fp16", "fp8", "int8", "fp4", "int4"]


class Precision(Document):
    """Number formats. Embeddings, LM head and norms are held in ``activations``."""

    weights: DType = "bf16"
    kv_cache: Literal["bf16", "fp16", "fp8", "int8"] = "bf16"
    activations: Literal["bf16", "fp16"] = "bf16"


class EngineRules(Document):
    """Switches of the engine's own rules; a missing one takes the engine's default.

    ``disaggregated_experts`` allows stages whose routed experts have GPUs of their own.
    """

    micro_batches_equal_stages: bool | None = None
    equal_shape_per_stage: bool | None = None
    heads_divisible: bool | None = None
    disaggregated_experts: bool | None = None


class Engine(Document):
    """The engine that is to run the plan.

    ``latencies``: iteration times by the cost model, or from measured tables of this
    engine (docs/silicon.md).
    """

    name: Literal["vllm", "sglang", "trtllm", "generic"] = "vllm"
    rules: EngineRules = EngineRules()
    latencies: Literal["analytic", "silicon"] = "analytic"

    @model_serializer(mode="wrap")
    def _given_only(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # what an older file cannot say leaves no trace, so its hash stays
        document: dict[str, Any] = handler(self)
        if self.latencies == "analytic":
            del document["latencies"]
        return document


class Grid(Document):
    """What may be chosen; what is not given takes the default grid.

    ``context_parallel`` and ``moe_dp`` are degrees of the stages (docs/cost-model.md
    section 14), the others figures of the operating point.
    """

    sequences: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] | None = None
    prefill_chunk_tokens: tuple[Tokens, ...] | None = None
    micro_batches: tuple[Count, ...] | None = None
    context_parallel: (
        Annotated[tuple[Count, ...], Field(min_length=1, max_length=16)] | None
    ) = None
    moe_dp: Annotated[tuple[Count, ...], Field(min_length=1, max_length=16)] | None = (
        None
    )

    @model_serializer(mode="wrap")
    def _given_only(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_new(handler(self), ("context_parallel", "moe_dp"))


Goal = Literal["gpus", "cost", "throughput", "tpot", "ttft"]

BYTES_PER_PARAMETER: dict[str, tuple[int, int]] = {
    "bf16": (2, 1),
    "fp16": (2, 1),
    "fp8": (1, 1),
    "int8": (1, 1),
    "fp4": (1, 2),
    "int4": (1, 2),
}
"""Numerator and denominator of the bytes of one value."""
