"""What the readers of expert models share: routed sizes, and stacks of layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shardwright.ingest.architectures import Frame, Stack
from shardwright.ingest.fields import Fields
from shardwright.ingest.patterns import context_of
from shardwright.schema.model import AnyAttention, AnyFfn, LayerKind, MoeFfn

MAX_EXPERTS = 10**5

ROUTING = frozenset(
    {
        "aux_loss_alpha",
        "ep_size",
        "norm_topk_prob",
        "output_router_logits",
        "routed_scaling_factor",
        "router_aux_loss_coef",
        "router_jitter_noise",
        "scoring_func",
        "seq_aux",
    }
)
"""Fields of the router without consequence for sizes: scores, scaling, training."""

Block = tuple[AnyAttention, AnyFfn]


def routed(fields: Fields, experts: str, top_k: str, width: str) -> MoeFfn:
    """Gated experts without biases, from the fields of these names."""
    fields.harmless(ROUTING)
    count = fields.whole(experts, most=MAX_EXPERTS)
    return MoeFfn(
        experts=count,
        top_k=fields.whole(top_k, most=count),
        intermediate=fields.whole(width),
    )


def grouped(fields: Fields, moe: MoeFfn) -> MoeFfn:
    """The experts in ``n_group`` groups of which ``topk_group`` are reached.

    Absent: one group.
    """
    groups = fields.whole("n_group", 1, most=moe.experts)
    if moe.experts % groups:
        fields.refuse("n_group", f"a divisor of {moe.experts} experts")
    chosen = fields.whole("topk_group", groups, most=groups)
    if chosen * (moe.experts // groups) < moe.top_k:
        fields.refuse("topk_group", f"groups with the {moe.top_k} experts of a token")
    return moe.model_copy(update={"n_group": groups, "topk_group": chosen})


def sharing(fields: Fields, name: str, moe: MoeFfn) -> MoeFfn:
    """The experts with as many shared ones, as wide, as the field says; absent: 0."""
    count = fields.count(name, 0, most=1000)
    update = {"shared_experts": count, "shared_intermediate": count * moe.intermediate}
    return moe.model_copy(update=update)


def dense_first(fields: Fields, layers: int) -> list[bool]:
    """Which layers have experts: those from ``first_k_dense_replace`` on."""
    first = fields.count("first_k_dense_replace", most=layers)
    return [i >= first for i in range(layers)]


def switched(fields: Fields, name: str, layers: int) -> list[bool]:
    """A list of 0 and 1, one for every layer."""
    listed: Any = fields.get(name)
    if not isinstance(listed, list) or len(listed) != layers:
        fields.refuse(name, f"a list of {layers} is needed")
    if not all(type(entry) is int and entry in (0, 1) for entry in listed):
        fields.refuse(name, "a list of 0 and 1")
    return [entry == 1 for entry in listed]


def choose(pattern: Iterable[bool], yes: AnyFfn, no: AnyFfn) -> list[AnyFfn]:
    """``yes`` where the pattern holds, else ``no``."""
    return [yes if entry else no for entry in pattern]


def layered(
    fields: Fields,
    frame: Frame,
    blocks: list[Block],
    norm_width: int | None = None,
    tied: bool = False,
    context: int | None = None,
) -> Stack:
    """The stack of these blocks; kinds are told by their FFN and their window.

    ``norm_width`` None: two norms of the hidden size; ``tied`` is the meaning of an
    absent ``tie_word_embeddings``.
    """
    norms = 2 * frame.hidden if norm_width is None else norm_width
    mixed = len({attention.window_tokens for attention, _ in blocks}) > 1
    kinds = {block: _kind(block, mixed, norms) for block in set(blocks)}
    return Stack(
        hidden=frame.hidden,
        vocabulary=frame.vocabulary,
        tied_embeddings=fields.flag("tie_word_embeddings", tied),
        max_position_tokens=context or context_of(fields),
        layers=[kinds[block] for block in blocks],
    )


def _kind(block: Block, mixed: bool, norms: int) -> LayerKind:
    attention, ffn = block
    reach = "global" if attention.window_tokens is None else "local"
    name = f"{ffn.type}-{reach}" if mixed else ffn.type
    return LayerKind(name=name, attention=attention, ffn=ffn, norm_width=norms)
