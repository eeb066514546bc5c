"""Launchability: which engines can start a plan, and what forbids the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from shardwright.plan.anatomy import Anatomy
from shardwright.plan.experts import expert_count, redundant_slots
from shardwright.plan.groups import has_experts, shape_words
from shardwright.problem import mixtures
from shardwright.schema.instance import Instance
from shardwright.schema.model import AnyAttention, MlaAttention
from shardwright.schema.plan import Replica, Shape


@dataclass(frozen=True)
class Obstacle:
    """A rule of an engine that a replica breaks."""

    rule: str
    replica: int
    why: str


@dataclass(frozen=True)
class EngineVerdict:
    """One engine: it can launch the plan when nothing is in the way."""

    engine: str
    obstacles: tuple[Obstacle, ...]

    @property
    def launchable(self) -> bool:
        """Whether every replica can be started as one server of the engine."""
        return not self.obstacles

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "engine": self.engine,
            "launchable": self.launchable,
            "obstacles": [vars(obstacle) for obstacle in self.obstacles],
        }


Rule = Callable[[Anatomy, Replica], str | None]


def equal_shape_per_stage(anatomy: Anatomy, replica: Replica) -> str | None:
    """One shape is given for all stages."""
    shapes = [(stage.shape, stage.expert_slots) for stage in replica.stages]
    if len(set(shapes)) == 1:
        return None
    if has_experts(replica.stages):
        words = dict.fromkeys(shape_words([stage]) for stage in replica.stages)
        return f"stages have {', '.join(words)}; one shape is allowed"
    degrees = ", ".join(str(stage.shape.tp) for stage in replica.stages)
    return f"stages have tp {degrees}; one degree is allowed"


def micro_batches_equal_stages(anatomy: Anatomy, replica: Replica) -> str | None:
    """As many batches are in flight as there are stages."""
    q, p = replica.operating_point.micro_batches, len(replica.stages)
    return None if q == p else f"{q} micro-batches on {p} stages; {p} run"


def heads_divisible(anatomy: Anatomy, replica: Replica) -> str | None:
    """tp divides the heads; KV heads are split evenly or copied evenly."""
    kinds = anatomy.instance.model.layer_kinds
    for tp in sorted({stage.shape.tp for stage in replica.stages}):
        for attention in (kind.attention for kind in kinds):
            if attention is not None and not divides(attention, tp):
                heads = f"{attention.heads} heads, {attention.kv_heads} KV heads"
                return f"tp {tp} does not divide {heads}"
    return None


def divides(attention: AnyAttention, tp: int) -> bool:
    """Whether ``tp`` ranks can share the heads evenly."""
    kv = attention.kv_heads
    return attention.heads % tp == 0 and (kv % tp == 0 or tp % kv == 0)


def equal_gpus_per_node(anatomy: Anatomy, replica: Replica) -> str | None:
    """Every node of a server runs the same number of ranks."""
    per_node = Counter(gpu.node for stage in replica.stages for gpu in stage.gpus)
    if len(set(per_node.values())) == 1:
        return None
    found = ", ".join(f"{node}: {n}" for node, n in sorted(per_node.items()))
    return f"GPUs per node differ ({found})"


def whole_experts_or_tensor(anatomy: Anatomy, replica: Replica) -> str | None:
    """Experts are whole on every GPU, or each is split over the whole stage."""
    for stage in replica.stages:
        shape, gpus = stage.shape, len(stage.gpus)
        if stage.expert_unit is not None or not stage.expert_slots:
            continue  # disaggregated_experts says it all
        if (shape.moe_tp, shape.ep) not in ((1, gpus), (gpus, 1)):
            return (
                f"EP{shape.ep} with MoE-TP{shape.moe_tp} on {gpus} GPUs; "
                f"EP{gpus} or MoE-TP{gpus} is allowed"
            )
    return None


def attention_dp_one_or_all(anatomy: Anatomy, replica: Replica) -> str | None:
    """Attention is tensor parallel or data parallel, never both."""
    for stage in replica.stages:
        dp, gpus = stage.shape.attn_dp, stage.memory_by_role()[0][1]
        if dp not in (1, gpus):
            return f"attention DP {dp} on {gpus} GPUs; 1 or {gpus} is allowed"
    return None


def one_copy_of_experts(anatomy: Anatomy, replica: Replica) -> str | None:
    """A stage has its experts once."""
    copies = _copies(replica)
    return None if copies == 1 else f"MoE-DP {copies}; 1 is allowed"


def _copies(replica: Replica) -> int:
    """moe_dp; of a dense stage, whose weights are all copied, 1."""
    return max(s.shape.moe_dp if s.expert_slots else 1 for s in replica.stages)


def copies_follow_context(anatomy: Anatomy, replica: Replica) -> str | None:
    """SGLang copies experts for each context rank, without a pipeline."""
    copies, shape = _copies(replica), replica.stages[0].shape
    if copies == 1:
        return None
    if copies != shape.cp:
        return f"MoE-DP {copies} with CP {shape.cp}; 1 or {shape.cp} is allowed"
    if len(replica.stages) > 1:
        return f"MoE-DP {copies} on {len(replica.stages)} stages; one is allowed"
    if 1 not in (shape.ep, shape.moe_tp):
        return f"MoE-DP {copies} with EP{shape.ep} and MoE-TP{shape.moe_tp}"
    return None


def latent_context(anatomy: Anatomy, replica: Replica) -> str | None:
    """vLLM's backends with context parallelism are those of latent attention."""
    cp = max(stage.shape.cp for stage in replica.stages)
    kinds = (kind.attention for kind in anatomy.instance.model.layer_kinds)
    if cp == 1 or all(isinstance(a, MlaAttention) for a in kinds if a is not None):
        return None
    return f"CP {cp}; without latent attention (MLA) 1 is allowed"


def no_context(anatomy: Anatomy, replica: Replica) -> str | None:
    """TensorRT-LLM has context parallelism for generation servers alone (Helix)."""
    cp = max(stage.shape.cp for stage in replica.stages)
    return None if cp == 1 else f"CP {cp}; 1 is allowed beside prefill"


def mixture_context(anatomy: Anatomy, replica: Replica) -> str | None:
    """SGLang's classes with prefill context parallelism are mixtures; not on AMD."""
    cp = max(stage.shape.cp for stage in replica.stages)
    types = anatomy.instance.cluster.gpu_types
    amd = any(types[stage.gpu_type].vendor == "AMD" for stage in replica.stages)
    if cp == 1 or (expert_count(anatomy.instance) and not amd):
        return None
    return f"CP {cp}; 1 is allowed {'on AMD GPUs' if amd else 'for dense models'}"


def cache_as_priced(anatomy: Anatomy, replica: Replica) -> str | None:
    """Whether the engine keeps as much cache on a rank of a context group as priced."""
    cp = max(stage.shape.cp for stage in replica.stages)
    if cp == 1 or anatomy.instance.engine.name == "sglang":
        return None
    return f"CP {cp}; it keeps the whole cache on each, {cp} times what is planned"


def experts_divisible(anatomy: Anatomy, replica: Replica) -> str | None:
    """Every GPU of an expert group has equally many slots, all of them filled."""
    experts = expert_count(anatomy.instance)
    for stage in replica.stages:
        ep, filled = stage.shape.ep, experts
        filled += redundant_slots(anatomy.instance, stage) if experts else 0
        empty = stage.expert_slots * ep - filled
        if experts and empty:
            return f"EP{ep} does not divide {experts} experts; {empty} slots are empty"
    return None


def experts_split_evenly(anatomy: Anatomy, replica: Replica) -> str | None:
    """moe_tp divides the width of an expert, in whole blocks where fp8 has them."""
    block = _fp8_block(anatomy.instance)
    for stage in replica.stages:
        parts = stage.shape.moe_tp
        for width in (e.intermediate for e in mixtures(anatomy.instance.model)):
            if width % (parts * block):
                blocks = f" in blocks of {block}" if block > 1 else ""
                return f"MoE-TP{parts} does not divide experts of {width}{blocks}"
    return None


def _fp8_block(instance: Instance) -> int:
    """Columns that share a scale where experts are deployed as published in fp8."""
    published = instance.model.quantization
    if published is None or published.block is None:
        return 1
    if published.dtype != "fp8" or instance.precision.weights != "fp8":
        return 1
    return max(published.block) if "experts" in published.parts else 1


def whole_ranks_per_node(anatomy: Anatomy, replica: Replica) -> str | None:
    """A stage over several nodes has whole attention ranks on each, equally many."""
    for stage in replica.stages:
        per_node = Counter(gpu.node for gpu in stage.gpus)
        if len(per_node) == 1:
            continue
        sizes = sorted(set(per_node.values()))
        dense = not stage.expert_slots and stage.shape.tp == len(stage.gpus)
        if len(sizes) == 1 and dense:
            continue
        if len(sizes) > 1 or sizes[0] % stage.shape.tp:
            found = ", ".join(map(str, sizes))
            return f"{found} GPUs of a stage per node with TP{stage.shape.tp}"
    return None


def disaggregated_experts(anatomy: Anatomy, replica: Replica) -> str | None:
    """Routed experts lie on the GPUs that run attention."""
    apart = [stage.expert_unit for stage in replica.stages if stage.expert_unit]
    if not apart:
        return None
    return f"experts alone on {apart[0].gpus} of a stage's GPUs; no release serves that"


_COMMON: tuple[Rule, ...] = (
    disaggregated_experts,
    equal_shape_per_stage,
    micro_batches_equal_stages,
    heads_divisible,
    experts_split_evenly,
    whole_ranks_per_node,
)

ENGINES: dict[str, tuple[Rule, ...]] = {
    "vllm": (*_COMMON, whole_experts_or_tensor, latent_context),
    "sglang": (
        *_COMMON,
        copies_follow_context,
        mixture_context,
        cache_as_priced,
        experts_divisible,
        equal_gpus_per_node,
    ),
    "trtllm": (
        *_COMMON,
        attention_dp_one_or_all,
        no_context,
        one_copy_of_experts,
        experts_divisible,
    ),
}
"""Rules of each engine. Replicas are servers of their own and may differ."""


def context_flags(engine: str, shape: Shape, experts: bool) -> tuple[str, ...]:
    """Flags with which an engine gets the context groups of a stage; () where none.

    SGLang counts all GPUs of a stage as its tp-size. vLLM cuts the cache over the same
    ranks by decode context parallelism.
    """
    if shape.cp == 1 or engine not in ("vllm", "sglang"):
        return ()
    if engine == "vllm":
        return (
            f"--tensor-parallel-size {shape.tp}",
            f"--prefill-context-parallel-size {shape.cp}",
            f"--decode-context-parallel-size {shape.cp}",
        )
    copies = (f"--moe-dp-size {shape.moe_dp}",) if experts else ()
    return (
        f"--tp-size {shape.tp * shape.attn_dp * shape.cp}",
        f"--attn-cp-size {shape.cp}",
        *copies,
        "--enable-prefill-cp",
        "--cp-strategy zigzag",
    )


def launchability(anatomy: Anatomy) -> list[EngineVerdict]:
    """The verdict on every engine."""
    return [
        EngineVerdict(engine, tuple(_obstacles(anatomy, rules)))
        for engine, rules in ENGINES.items()
    ]


def _obstacles(anatomy: Anatomy, rules: tuple[Rule, ...]) -> Iterator[Obstacle]:
    replicas, broken = anatomy.plan.replicas(), dict[int, list[Rule]]()
    for index, first in enumerate(anatomy.alike):
        if index == first:
            broken[index] = [r for r in rules if r(anatomy, replicas[index])]
        for rule in broken[first]:
            why = rule(anatomy, replicas[index])  # it may name the nodes
            if why is not None:
                yield Obstacle(rule.__name__, index, why)
