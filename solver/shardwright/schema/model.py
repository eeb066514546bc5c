"""The model: a stack of layers, each of one kind, between embedding and LM head."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from shardwright.schema.base import Count, Document, Index, Name, Tokens

Width = Annotated[int, Field(ge=1, le=10**7)]


class Attention(Document):
    """Grouped-query attention; multi-head is kv_heads = heads, multi-query is 1.

    ``window_tokens`` bounds what a token sees (local or sliding attention).
    ``qk_norm_width`` is the number of query/key norm weights in one layer.
    """

    type: Literal["gqa"] = "gqa"
    heads: Width
    kv_heads: Width
    head_dim: Width
    window_tokens: Tokens | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm_width: Annotated[int, Field(ge=0, le=10**7)] = 0

    @model_validator(mode="after")
    def _groups(self) -> Attention:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})"
            )
        return self


class DenseFfn(Document):
    """Feed-forward block; ``matrices`` is 3 when gated (SwiGLU, GeGLU), else 2."""

    type: Literal["dense"] = "dense"
    intermediate: Width
    matrices: Literal[2, 3] = 3
    bias: bool = False


class LayerKind(Document):
    """What one layer is made of; a missing part is a no-op in that layer.

    ``norm_width`` counts the norm weights of the layer outside attention.
    """

    name: Name
    attention: Attention | None
    ffn: DenseFfn | None
    norm_width: Annotated[int, Field(ge=0, le=10**7)]


class ModelSpec(Document):
    """A decoder-only text model as a list of layer kinds.

    ``layers[i]`` is the name of the kind of layer i. ``embedding_norm_width``
    counts norm weights outside the layers (the final norm).
    """

    name: Name
    hidden: Width
    vocabulary: Width
    tied_embeddings: bool
    max_position_tokens: Tokens | None
    final_norm_width: Annotated[int, Field(ge=0, le=10**7)]
    layer_kinds: Annotated[tuple[LayerKind, ...], Field(min_length=1, max_length=64)]
    layers: Annotated[tuple[Name, ...], Field(min_length=1, max_length=2000)]
    source: str = ""

    @model_validator(mode="after")
    def _known_kinds(self) -> ModelSpec:
        names = [kind.name for kind in self.layer_kinds]
        if len(set(names)) != len(names):
            raise ValueError(f"layer_kinds have repeated names: {names}")
        unknown = sorted(set(self.layers) - set(names))
        if unknown:
            raise ValueError(f"layers name unknown kinds {unknown}; known: {names}")
        return self

    def kind_indices(self) -> tuple[int, ...]:
        """Index into ``layer_kinds`` of every layer."""
        index = {kind.name: i for i, kind in enumerate(self.layer_kinds)}
        return tuple(index[name] for name in self.layers)


class LayerRange(Document):
    """Half-open interval of layers [start, end)."""

    start: Index
    end: Count
