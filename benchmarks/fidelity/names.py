"""What published tables call models and GPUs, in the catalogue's words."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from shardwright.ingest import catalogue
from shardwright.planning.replay import Resolver
from shardwright.planning.runs import Skipped, columns
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.model import (
    Attention,
    DenseFfn,
    LayerKind,
    MlaAttention,
    ModelSpec,
    MoeFfn,
)

DATA = Path(__file__).parent / "data"


def readable(table: Path) -> bool:
    """Whether a file is a table of runs; says on stderr why not."""
    try:
        columns(table)
    except InvalidInstance as refused:
        print(refused, file=sys.stderr)
        return False
    return True


@cache
def _data() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(DATA / "models.yaml")
    return loaded


def _match(kind: str, text: str) -> str | None:
    lower = text.lower()
    return next((name for rule, name in _data()[kind] if re.search(rule, lower)), None)


@cache
def gpu(name: str) -> GpuSpec:
    """A GPU type of the catalogue. Raises Skipped where there is none."""
    known = _match("gpus", name)
    if known is None:
        raise Skipped("GPU unknown to the catalogue")
    return catalogue.gpu(known)


@cache
def model(name: str, short: str) -> ModelSpec:
    """A model by its repository's name, else by its short one. Raises Skipped."""
    for text in (name, short):
        known = _match("names", text)
        if known is not None:
            return _spec(known)
    raise Skipped("model dimensions unknown to the catalogue")


@cache
def _spec(name: str) -> ModelSpec:
    data = _data()
    for kind, build in (("dense", _dense), ("moe", _moe), ("latent", _latent),
                        ("hybrid", _hybrid)):  # fmt: skip
        if name in data[kind]:
            return build(name, data[kind][name])
    return catalogue.model(name)


def _stack(name: str, hidden: int, vocabulary: int, tied: bool,
           kinds: list[tuple[LayerKind, int]]) -> ModelSpec:  # fmt: skip
    layers = [kind.name for kind, count in kinds for _ in range(count)]
    return ModelSpec(
        name=name, hidden=hidden, vocabulary=vocabulary, tied_embeddings=tied,
        max_position_tokens=None, final_norm_width=hidden,
        layer_kinds=tuple(kind for kind, count in kinds if count),
        layers=tuple(layers),
    )  # fmt: skip


def _dense(name: str, d: list[Any]) -> ModelSpec:
    layers, hidden, heads, kv, width, intermediate, vocabulary, matrices, tied = d
    attention = Attention(heads=heads, kv_heads=kv, head_dim=width)
    ffn = DenseFfn(intermediate=intermediate, matrices=matrices)
    kind = LayerKind(name="dense", attention=attention, ffn=ffn, norm_width=2 * hidden)
    return _stack(name, hidden, vocabulary, tied, [(kind, layers)])


def _experts(experts: int, top_k: int, width: int, shared: int) -> MoeFfn:
    return MoeFfn(experts=experts, top_k=top_k, intermediate=width,
                  shared_experts=int(shared > 0),
                  shared_intermediate=shared)  # fmt: skip


def _with_leading(name: str, attention: Attention | MlaAttention, hidden: int,
                  vocabulary: int, layers: int, ffn: MoeFfn, leading: int,
                  width: int) -> ModelSpec:  # fmt: skip
    dense = LayerKind(name="dense", attention=attention, norm_width=2 * hidden,
                      ffn=DenseFfn(intermediate=width or 1))  # fmt: skip
    moe = LayerKind(name="moe", attention=attention, ffn=ffn, norm_width=2 * hidden)
    parts = [(dense, leading), (moe, layers - leading)]
    return _stack(name, hidden, vocabulary, False, parts)


def _moe(name: str, d: list[int]) -> ModelSpec:
    layers, hidden, heads, kv, width, *rest = d
    experts, top_k, inner, shared, vocabulary, leading, dense = rest
    attention = Attention(heads=heads, kv_heads=kv, head_dim=width)
    ffn = _experts(experts, top_k, inner, shared)
    return _with_leading(name, attention, hidden, vocabulary, layers, ffn, leading,
                         dense)  # fmt: skip


def _latent(name: str, d: list[int]) -> ModelSpec:
    layers, hidden, heads, q, kv, nope, rope, value, *rest = d
    experts, top_k, inner, shared, vocabulary, leading, dense = rest
    attention = MlaAttention(heads=heads, q_lora_rank=q, kv_lora_rank=kv,
                             qk_nope_head_dim=nope, qk_rope_head_dim=rope,
                             v_head_dim=value)  # fmt: skip
    ffn = _experts(experts, top_k, inner, shared)
    return _with_leading(name, attention, hidden, vocabulary, layers, ffn, leading,
                         dense)  # fmt: skip


def _hybrid(name: str, d: dict[str, Any]) -> ModelSpec:
    heads, kv, width = d["full"]
    full = Attention(heads=heads, kv_heads=kv, head_dim=width)
    heads, kv, width, state = d["linear"]
    linear = Attention(heads=heads, kv_heads=kv, head_dim=width, window_tokens=state)
    ffn = _experts(*d["moe"])
    kinds = [
        LayerKind(name=n, attention=a, ffn=ffn, norm_width=2 * d["hidden"])
        for n, a in (("full", full), ("linear", linear))
    ]
    count = d["layers"] // d["every"]
    parts = [(kinds[0], count), (kinds[1], d["layers"] - count)]
    return _stack(name, d["hidden"], d["vocabulary"], False, parts)


RESOLVER = Resolver(gpu, model)
"""Names of published tables; what is unknown is skipped."""
