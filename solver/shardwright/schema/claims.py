"""Somebody's claims about a deployment, typed so that each can be computed again."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from shardwright.schema.base import SCHEMA_VERSION, Document, Index, Name
from shardwright.schema.base import Tolerance as Share
from shardwright.schema.instance import Fix
from shardwright.schema.printed import parse_printed
from shardwright.schema.strategy_name import parse_strategy

Id = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,60}$")]


def _is_printed(text: str) -> str:
    parse_printed(text)
    return text


def _is_strategy(text: str) -> str:
    parse_strategy(text)
    return text


PrintedText = Annotated[
    str, Field(min_length=1, max_length=80), AfterValidator(_is_printed)
]
"""A figure as printed: ``~17.5 GB``, ``<5%``, ``20-40 ms``, ``8 GPUs``."""

StrategyText = Annotated[
    str, Field(min_length=1, max_length=200), AfterValidator(_is_strategy)
]
"""``TP2-PP4-DP1``, ``PP(4) x TP(2)``, ``TP=2, PP=4``."""

Operand = Annotated[str, Field(min_length=1, max_length=80)] | int | float
"""A number, a printed figure (``140 GB``), or the id of a claim that prints one."""

Open = Literal[
    "parameters", "widths", "routing", "hbm", "link", "network", "compute", "formats",
    "input_tokens", "output_tokens", "max_batch", "max_context", "memory_limit",
]  # fmt: skip
"""What a document may leave open, so that the instance holds an assumption."""

Figure = Literal[
    "gpus", "nodes", "gpus_per_node", "gpu_memory", "cluster_memory", "usable_memory",
    "memory_fraction", "layers", "hidden", "heads", "kv_heads", "vocabulary",
    "positions", "experts", "expert_instances", "parameters", "weights",
    "bytes_per_parameter", "layer_weights", "gpu_compute", "hbm_bandwidth",
    "link_bandwidth", "network_bandwidth", "max_batch", "max_context", "input_tokens",
    "request_rate", "target_prefill_p50", "target_prefill_p99", "target_tpot_p50",
    "target_tpot_p99", "target_ttft_p99", "target_ttft", "target_tpot",
    "limit_memory_imbalance", "limit_communication_share", "spare_gpus",
]  # fmt: skip
"""What the instance says by itself."""


class _Said(Document):
    """What every claim carries: where it stands, and what it says.

    ``claimed`` is the figure as printed. ``tolerance`` replaces the printed
    precision, relative to the claim. ``against`` names claims of the same document
    from which the right figure follows: a mismatch is then a contradiction with them.
    ``note`` is printed behind the derivation.
    """

    id: Id
    line: Annotated[int, Field(ge=1, le=10**6)]
    quote: Annotated[str, Field(min_length=1, max_length=240)]
    tolerance: Share | None = None
    against: tuple[Id, ...] = ()
    note: str = ""


class _Figured(_Said):
    claimed: PrintedText


class FactClaim(_Figured):
    """A figure of the model, the cluster or the targets."""

    type: Literal["fact"]
    figure: Figure


class DegreeClaim(_Figured):
    """One degree of a strategy."""

    type: Literal["degree"]
    strategy: StrategyText
    of: Literal["tp", "pp", "dp", "ep", "cp", "attn_dp", "moe_tp"]


class GpusClaim(_Figured):
    """GPUs that a strategy takes, in all or per replica, stage or layer.

    ``layout`` says where experts lie: on the GPUs of attention (``shared``), on GPUs
    of their own (``separate``), or counted as one more factor (``multiplied``).
    """

    type: Literal["gpus"]
    strategy: StrategyText
    layout: Literal["shared", "separate", "multiplied"] | None = None
    per: Literal["plan", "replica", "stage"] = "plan"


class ReplicasClaim(_Figured):
    """Replicas that a number of GPUs holds under a strategy."""

    type: Literal["replicas"]
    strategy: StrategyText
    gpus: Operand
    layout: Literal["shared", "separate", "multiplied"] | None = None


class LayersClaim(_Figured):
    """Layers of a stage: how many, or with ``stage`` which (first-last, inclusive)."""

    type: Literal["layers"]
    strategy: StrategyText
    stage: Index | None = None


class ExpertsClaim(_Figured):
    """Experts of one layer on each GPU of an expert group."""

    type: Literal["experts"]
    strategy: StrategyText


class WeightsClaim(_Figured):
    """Weights of the model, of one stage, one GPU, or the GPUs of one TP group.

    ``total`` is the document's own figure for the whole model; without it the
    model's exact parameters are taken. ``share_of`` makes it a share of that memory.
    """

    type: Literal["weights"]
    of: Literal["model", "stage", "gpu", "tp_group"]
    strategy: StrategyText | None = None
    total: Operand | None = None
    share_of: Operand | None = None

    @model_validator(mode="after")
    def _divided(self) -> WeightsClaim:
        if self.of != "model" and self.strategy is None:
            raise ValueError(f"weights of a {self.of} need a strategy")
        return self


class WeightsBalanceClaim(_Figured):
    """(max - mean) / mean of the weights over the GPUs of a strategy."""

    type: Literal["weights_imbalance"]
    strategy: StrategyText


class KvBytesClaim(_Figured):
    """KV cache of one token: in the whole model, or on one GPU of a strategy."""

    type: Literal["kv_bytes_per_token"]
    strategy: StrategyText | None = None


class KvTokensClaim(_Figured):
    """Tokens whose KV cache fits ``memory`` on each GPU of a strategy."""

    type: Literal["kv_tokens"]
    memory: Operand
    strategy: StrategyText


class BubbleClaim(_Figured):
    """Idle share of a pipeline from its stages and micro-batches."""

    type: Literal["bubble"]
    stages: Operand
    micro_batches: Operand | None = None


class MessageClaim(_Figured):
    """Bytes that ``tokens`` tokens send: one all-reduce, all of one layer, one hop."""

    type: Literal["message"]
    of: Literal["allreduce", "layer", "hop"]
    tokens: Operand | None = None


class TransferClaim(_Figured):
    """Time of ``bytes`` over a link of ``bandwidth``; ``ranks`` makes it a ring
    all-reduce among as many GPUs."""

    type: Literal["transfer_time"]
    bytes: Operand
    bandwidth: Operand
    ranks: Annotated[int, Field(ge=2, le=10**5)] | None = None


class LinkShareClaim(_Figured):
    """Share of a GPU's link that tensor parallelism takes at a token rate."""

    type: Literal["link_share"]
    strategy: StrategyText
    tokens_per_s: Operand


class FlopClaim(_Figured):
    """FLOP of one token at least: two per weight that it uses, in its experts or in
    the whole model (attention scores left out)."""

    type: Literal["flop_per_token"]
    of: Literal["experts", "model"]


class FormulaClaim(_Figured):
    """Arithmetic on figures that the document prints.

    ``formula`` has + - * / ( ) min() max(), numbers, and the names of ``where``.
    """

    type: Literal["formula"]
    formula: Annotated[str, Field(min_length=1, max_length=200)]
    where: dict[str, Operand] = Field(default_factory=dict)


class FeasibilityClaim(_Said):
    """Whether a strategy is possible, decided by solving.

    ``given`` lists the rules that count: ``memory`` alone, or ``all`` limits and
    targets of the instance. ``failed_gpus`` are taken out first.
    """

    type: Literal["feasibility"]
    claimed: Literal["feasible", "infeasible"]
    strategy: StrategyText
    given: Literal["memory", "all"] = "memory"
    failed_gpus: Index = 0


class OptimalClaim(_Said):
    """That a strategy is the best one for throughput under the instance's targets.

    The cost model's best plan is told beside it; a model's word decides nothing.
    """

    type: Literal["optimal"]
    claimed: Literal["optimal"]
    strategy: StrategyText


class FlagClaim(_Said):
    """A launch flag with its value (``true`` for a switch), against its engine's table
    and the instance's limits. ``strategy`` is what the command is to launch."""

    type: Literal["flag"]
    engine: Literal["vllm", "sglang", "trtllm"]
    flag: Annotated[str, Field(pattern=r"^--?[a-z][a-z0-9_-]*$", max_length=80)]
    claimed: Annotated[str, Field(min_length=1, max_length=80)]
    strategy: StrategyText | None = None


class PerformanceClaim(_Figured):
    """A latency, rate or utilisation of a strategy.

    It is held against physical bounds only: what a model predicts is an estimate.
    ``part`` of a time is still at least what it must contain.
    """

    type: Literal["performance"]
    metric: Literal[
        "prefill", "tpot", "ttft", "requests_per_s", "output_tokens_per_s",
        "tokens_per_s", "tokens_per_s_per_gpu", "communication_share",
        "compute_imbalance", "utilisation",
    ]  # fmt: skip
    strategy: StrategyText
    tokens: Operand | None = None


class AllOfClaim(_Said):
    """A summary that stands or falls with other claims ("all parameters valid")."""

    type: Literal["all_of"]
    claimed: Annotated[str, Field(min_length=1, max_length=80)]
    of: Annotated[tuple[Id, ...], Field(min_length=1, max_length=500)]


class OpenClaim(_Said):
    """A figure that neither the document nor the instance lets anybody compute."""

    type: Literal["open"]
    claimed: Annotated[str, Field(min_length=1, max_length=80)]
    missing: Annotated[str, Field(min_length=1, max_length=240)]


def _tag(value: object) -> str | None:
    found = value.get("type") if isinstance(value, dict) else getattr(value, "type", "")
    return found if isinstance(found, str) else ""


Claim = Annotated[
    Annotated[FactClaim, Tag("fact")]
    | Annotated[DegreeClaim, Tag("degree")]
    | Annotated[GpusClaim, Tag("gpus")]
    | Annotated[ReplicasClaim, Tag("replicas")]
    | Annotated[LayersClaim, Tag("layers")]
    | Annotated[ExpertsClaim, Tag("experts")]
    | Annotated[WeightsClaim, Tag("weights")]
    | Annotated[WeightsBalanceClaim, Tag("weights_imbalance")]
    | Annotated[KvBytesClaim, Tag("kv_bytes_per_token")]
    | Annotated[KvTokensClaim, Tag("kv_tokens")]
    | Annotated[BubbleClaim, Tag("bubble")]
    | Annotated[MessageClaim, Tag("message")]
    | Annotated[TransferClaim, Tag("transfer_time")]
    | Annotated[LinkShareClaim, Tag("link_share")]
    | Annotated[FlopClaim, Tag("flop_per_token")]
    | Annotated[FormulaClaim, Tag("formula")]
    | Annotated[FeasibilityClaim, Tag("feasibility")]
    | Annotated[OptimalClaim, Tag("optimal")]
    | Annotated[FlagClaim, Tag("flag")]
    | Annotated[PerformanceClaim, Tag("performance")]
    | Annotated[AllOfClaim, Tag("all_of")]
    | Annotated[OpenClaim, Tag("open")],
    Discriminator(_tag),
]


class Claims(Document):
    """The claims of one document.

    ``open`` lists what the document leaves open: the instance's figure is then the
    auditor's assumption, and no verdict rests on it. ``plan`` is the document's plan
    in the words of an instance's ``fix``, for estimates.
    """

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    document: Name
    open: tuple[Open, ...] = ()
    plan: Fix | None = None
    claims: Annotated[tuple[Claim, ...], Field(min_length=1, max_length=5000)]

    @model_validator(mode="after")
    def _references(self) -> Claims:
        ids = [claim.id for claim in self.claims]
        repeated = sorted({i for i in ids if ids.count(i) > 1})
        if repeated:
            raise ValueError(f"claims have repeated ids: {repeated}")
        for claim in self.claims:
            named = {*claim.against, *(claim.of if claim.type == "all_of" else ())}
            summaries = {c.id for c in self.claims if c.type == "all_of"}
            allowed = set(ids) - {claim.id}
            allowed -= summaries if claim.type == "all_of" else set()
            if unknown := sorted(named - allowed):
                raise ValueError(
                    f"claim {claim.id} names {unknown}; needed: other claims of this "
                    "file, and in all_of none that is an all_of itself"
                )
        return self
