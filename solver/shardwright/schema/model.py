"""The model: a stack of layers, each of one kind, between embedding and LM head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NoReturn

from pydantic import Discriminator, Field, Tag, model_validator

from shardwright.schema.base import Count, Document, Index, Name, Tokens
from shardwright.schema.errors import FieldError, InvalidInstance

Width = Annotated[int, Field(ge=1, le=10**7)]
MaybeWidth = Annotated[int, Field(ge=0, le=10**7)]


class Attention(Document):
    """Grouped-query attention; multi-head is kv_heads = heads, multi-query is 1.

    ``window_tokens`` bounds what a token sees (local, sliding or chunked attention).
    ``qk_norm_width`` is the number of query/key norm weights in one layer.
    ``v_head_dim`` is the width of a value head where it is not ``head_dim``.
    ``tied_kv_projection``: values are projected by the keys' matrix; the cache still
    holds both. ``sinks``: one learned logit per head joins the softmax.
    """

    type: Literal["gqa"] = "gqa"
    heads: Width
    kv_heads: Width
    head_dim: Width
    v_head_dim: Width | None = None
    window_tokens: Tokens | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm_width: MaybeWidth = 0
    tied_kv_projection: bool = False
    sinks: bool = False

    @model_validator(mode="after")
    def _groups(self) -> Attention:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})"
            )
        return self

    @property
    def value_dim(self) -> int:
        """Width of a value head."""
        return self.head_dim if self.v_head_dim is None else self.v_head_dim

    def unpriced(self) -> str | None:
        """The field of a feature that the cost tables do not price yet."""
        priced = {"v_head_dim": (None, self.head_dim), "sinks": (False,),
                  "tied_kv_projection": (False,)}  # fmt: skip
        return next((n for n, v in priced.items() if getattr(self, n) not in v), None)


class SparseIndexer(Document):
    """Picks the ``top_k`` tokens that a token of sparse attention (DSA) sees.

    Its keys, one of ``head_dim`` per token and layer, are cached beside the latents.
    """

    heads: Width
    head_dim: Width
    top_k: Tokens


class MlaAttention(Document):
    """Multi-head latent attention: keys and values are expanded from one latent.

    ``q_lora_rank`` None: queries are projected directly. What is cached per token
    and layer is ``latent_width`` values, the same for all heads.
    """

    type: Literal["mla"] = "mla"
    heads: Width
    q_lora_rank: Width | None
    kv_lora_rank: Width
    qk_nope_head_dim: Width
    qk_rope_head_dim: Width
    v_head_dim: Width
    indexer: SparseIndexer | None = None
    window_tokens: None = None

    @model_validator(mode="after")
    def _indexed_queries(self) -> MlaAttention:
        if self.indexer is not None and self.q_lora_rank is None:
            raise ValueError("indexer needs a q_lora_rank: it reads that latent")
        return self

    @property
    def kv_heads(self) -> int:
        """Every head has keys and values of its own once they are expanded."""
        return self.heads

    @property
    def latent_width(self) -> int:
        """Values in the cache per token: the latent and the shared rotary key."""
        return self.kv_lora_rank + self.qk_rope_head_dim


class DenseFfn(Document):
    """Feed-forward block; ``matrices`` is 3 when gated (SwiGLU, GeGLU), else 2."""

    type: Literal["dense"] = "dense"
    intermediate: Width
    matrices: Literal[2, 3] = 3
    bias: bool = False


class MoeFfn(Document):
    """Mixture of experts: a router sends every token to ``top_k`` of ``experts``.

    ``intermediate`` is the width of one expert, ``shared_intermediate`` that of all
    ``shared_experts`` (every token visits them) together. ``dense_intermediate`` is
    a dense FFN of its own beside the experts (Gemma 4). ``router_bias`` is added to
    the logits, ``correction_bias`` only to the scores that select;
    ``router_scale_width`` counts other learned scales of the router.

    The experts form ``n_group`` equal groups in order; a token's experts come from
    ``topk_group`` of them (node-limited routing; 1 and 1: no limit).
    """

    type: Literal["moe"] = "moe"
    experts: Annotated[int, Field(ge=1, le=10**5)]
    top_k: Width
    intermediate: Width
    matrices: Literal[2, 3] = 3
    bias: bool = False
    shared_experts: MaybeWidth = 0
    shared_intermediate: MaybeWidth = 0
    router_bias: bool = False
    correction_bias: bool = False
    router_scale_width: MaybeWidth = 0
    n_group: Width = 1
    topk_group: Width = 1
    dense_intermediate: MaybeWidth = 0

    @model_validator(mode="after")
    def _routable(self) -> MoeFfn:
        if self.experts % self.n_group:
            raise ValueError(
                f"n_group ({self.n_group}) must divide experts ({self.experts})"
            )
        if self.topk_group > self.n_group:
            raise ValueError(
                f"topk_group ({self.topk_group}) must be at most n_group "
                f"({self.n_group})"
            )
        within = self.topk_group * (self.experts // self.n_group)
        if self.top_k > within:
            raise ValueError(
                f"top_k ({self.top_k}) must be at most the {within} experts that a "
                "token can reach"
            )
        return self

    @model_validator(mode="after")
    def _shared_part(self) -> MoeFfn:
        if bool(self.shared_experts) != bool(self.shared_intermediate) or (
            self.shared_experts and self.shared_intermediate % self.shared_experts
        ):
            raise ValueError(
                f"shared_intermediate ({self.shared_intermediate}) must be a multiple "
                f"of shared_experts ({self.shared_experts}), and 0 without them"
            )
        return self


def _tag(default: str) -> Callable[[Any], str]:
    """Which branch of a union a value is: its ``type``, which may be left out."""

    def tag(value: Any) -> str:
        mapping = isinstance(value, dict)
        found = value.get("type") if mapping else getattr(value, "type", None)
        # a type that is no text is told as such by the default's own field
        return found if isinstance(found, str) else default

    return tag


AnyAttention = Annotated[
    Annotated[Attention, Tag("gqa")] | Annotated[MlaAttention, Tag("mla")],
    Discriminator(_tag("gqa")),
]
AnyFfn = Annotated[
    Annotated[DenseFfn, Tag("dense")] | Annotated[MoeFfn, Tag("moe")],
    Discriminator(_tag("dense")),
]


class LayerKind(Document):
    """What one layer is made of; a missing part is a no-op in that layer.

    ``norm_width`` counts the norm weights of the layer outside attention.
    """

    name: Name
    attention: AnyAttention | None
    ffn: AnyFfn | None
    norm_width: MaybeWidth

    @property
    def gqa(self) -> Attention | None:
        """The attention, where the dense cost tables price it.

        Raises InvalidInstance naming the field that they do not.
        """
        if self.attention is None:
            return None
        if not isinstance(self.attention, Attention):
            self._unpriced("attention", f"type {self.attention.type}")
        if field := self.attention.unpriced():
            self._unpriced(f"attention.{field}", f"{getattr(self.attention, field)}")
        return self.attention

    @property
    def dense(self) -> DenseFfn | None:
        """The FFN, where the dense cost tables price it; raises as ``gqa`` does."""
        if isinstance(self.ffn, MoeFfn):
            self._unpriced("ffn", f"type moe, {self.ffn.experts} experts")
        return self.ffn

    def _unpriced(self, field: str, found: str) -> NoReturn:
        error = FieldError(field, found, "this is not priced yet")
        raise InvalidInstance(f"layer kind {self.name!r}", [error])


class Quantization(Document):
    """The format in which a checkpoint publishes the weights of some parts.

    ``block`` is the rows and columns of a matrix that share a scale of
    ``scale_bytes``; None: one scale for the matrix. All else (embedding, LM head,
    norms, routers) is in the config's float type.
    """

    dtype: Literal["fp8", "fp4", "int4"]
    block: tuple[Width, Width] | None
    scale_bytes: Annotated[int, Field(ge=1, le=8)]
    parts: Annotated[
        tuple[Literal["attention", "dense_ffn", "shared_experts", "experts"], ...],
        Field(min_length=1, max_length=4),
    ]


class ModelSpec(Document):
    """A decoder-only text model as a list of layer kinds.

    ``layers[i]`` is the name of the kind of layer i. ``final_norm_width`` counts
    norm weights outside the layers. ``mtp_layers`` modules for multi-token
    prediction lie outside the stack; each is a layer of ``mtp_kind``, three norms
    and a projection of 2·hidden to hidden (None: the config does not say what they
    are). ``quantization`` is how the weights were published, not what they are
    deployed in.
    """

    name: Name
    hidden: Width
    vocabulary: Width
    tied_embeddings: bool
    max_position_tokens: Tokens | None
    final_norm_width: MaybeWidth
    lm_head_bias: bool = False
    layer_kinds: Annotated[tuple[LayerKind, ...], Field(min_length=1, max_length=64)]
    layers: Annotated[tuple[Name, ...], Field(min_length=1, max_length=2000)]
    mtp_layers: Annotated[int, Field(ge=0, le=100)] = 0
    mtp_kind: Name | None = None
    quantization: Quantization | None = None
    source: str = ""

    @model_validator(mode="after")
    def _known_kinds(self) -> ModelSpec:
        names = [kind.name for kind in self.layer_kinds]
        if len(set(names)) != len(names):
            raise ValueError(f"layer_kinds have repeated names: {names}")
        unknown = sorted(set(self.layers) - set(names))
        if unknown:
            raise ValueError(f"layers name unknown kinds {unknown}; known: {names}")
        if self.mtp_kind is not None and not (
            self.mtp_layers and self.mtp_kind in names
        ):
            raise ValueError(
                f"mtp_kind ({self.mtp_kind!r}) must be the kind of mtp_layers "
                f"({self.mtp_layers}) modules; known: {names}"
            )
        return self

    def kind_indices(self) -> tuple[int, ...]:
        """Index into ``layer_kinds`` of every layer."""
        index = {kind.name: i for i, kind in enumerate(self.layer_kinds)}
        return tuple(index[name] for name in self.layers)

    def dense_kinds(self) -> tuple[LayerKind, ...]:
        """The layer kinds, where every one is priced by the dense cost tables.

        Raises InvalidInstance with every field, ``model.layer_kinds.N.…``, that is
        not: experts, latent attention, sinks, value heads of their own.
        """
        errors: list[FieldError] = []
        for i, kind in enumerate(self.layer_kinds):
            for part in ("gqa", "dense"):
                try:
                    getattr(kind, part)
                except InvalidInstance as refused:
                    errors += [_inside(f"model.layer_kinds.{i}", error)
                               for error in refused.errors]  # fmt: skip
        if errors:
            raise InvalidInstance(self.name, errors)
        return self.layer_kinds


def _inside(place: str, error: FieldError) -> FieldError:
    return FieldError(f"{place}.{error.path}", error.found, error.allowed)


class LayerRange(Document):
    """Half-open interval of layers [start, end)."""

    start: Index
    end: Count
