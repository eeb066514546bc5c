"""Context parallelism and copies of experts: what an engine runs, what is searched.

docs/cost-model.md section 14.
"""

from __future__ import annotations

from shardwright.cost.shape import StageShape
from shardwright.ingest.consistency import context_refusal
from shardwright.problem.expert_maps import mixtures
from shardwright.schema.instance import Instance

LONG_PROMPT_TOKENS = 32_768
"""Mean prompt from which context parallelism is tried unasked."""

DEFAULT_DEGREES = (1, 2, 4, 8)

_COPYING = frozenset({"generic", "sglang"})
"""Engines with several copies of the experts within a stage."""


def kv_shards(instance: Instance, cp: int) -> int:
    """Ranks of a context group over which the cache of a sequence is cut."""
    return 1 if instance.engine.name == "sglang" else cp


def context_degrees(instance: Instance) -> tuple[int, ...]:
    """cp to choose from: ``fix``, the grid's, or by the length of prompts."""
    if context_refusal(instance) is not None:
        asked = instance.fix.cp
        return (1,) if asked in (None, 1) else ()
    if instance.fix.cp is not None:
        return (instance.fix.cp,)
    if instance.grid.context_parallel is not None:
        return instance.grid.context_parallel
    long = instance.workload.input_tokens.mean_tokens() >= LONG_PROMPT_TOKENS
    return DEFAULT_DEGREES if long else (1,)


def expert_copies(instance: Instance, cp: int) -> tuple[int, ...]:
    """moe_dp to choose from at a degree of context parallelism."""
    fix, asked = instance.fix.moe_dp, instance.grid.moe_dp
    found = (1, cp) if asked is None else asked
    found = found if fix is None else (fix,)
    if instance.engine.name not in _COPYING:
        return tuple(n for n in found if n == 1)[:1]
    return tuple(dict.fromkeys(found))


def degrees_document(instance: Instance) -> dict[str, list[int]]:
    """The degrees searched, as the grid is printed: where there are any but 1."""
    degrees = context_degrees(instance)
    found = {"context_parallel": list(degrees)}
    if mixtures(instance.model):
        copies = {n for cp in degrees for n in expert_copies(instance, cp)}
        found["moe_dp"] = sorted(copies)
    return {name: some for name, some in found.items() if max(some, default=1) > 1}


def copies_run(instance: Instance, shape: StageShape) -> bool:
    """Rule engine_shape, SGLang's part; every engine: copies serve whole ranks."""
    copies = shape.moe_dp
    if shape.attn_dp * shape.cp % copies:
        return False
    if copies == 1 or instance.engine.name != "sglang":
        return True
    return copies == shape.cp and 1 in (shape.ep, shape.moe_tp)


def copies_stand_alone(instance: Instance) -> bool:
    """Whether copies of experts are for replicas of one stage only (SGLang)."""
    return instance.engine.name == "sglang" and bool(mixtures(instance.model))
