"""``quantization_config``: the format of the published weights, part by part.

Understood are block or tensor fp8, mxfp4 and grouped 4-bit integers of
compressed-tensors, with lists of exempted modules that name whole parts. A file
that exempts single layers is refused: no format of a part would be true.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from shardwright.ingest.fields import Fields
from shardwright.ingest.refuse import one_of, refuse, shown
from shardwright.schema.model import Quantization

Part = Literal["attention", "dense_ffn", "shared_experts", "experts"]
PARTS: tuple[Part, ...] = ("attention", "dense_ffn", "shared_experts", "experts")

_SMALL = re.compile(
    r"(.*\.)?(lm_head|embed_tokens|norm|[a-z_]*norm(\.bias)?|[a-z_]*layernorm|gate"
    r"|router|e_score_correction_bias|indexers_proj|eh_proj)"
)
"""Modules that a Quantization leaves out: vocabulary matrices, norms, routers, the
heads' weights of an indexer, the joint of a prediction module."""

_WHOLE: dict[str, Part] = {
    "model.layers.*.self_attn": "attention",
    "re:.*self_attn.*": "attention",
    "re:.*shared_experts.*": "shared_experts",
    r"re:.*mlp\.(gate|up|gate_up|down)_proj.*": "dense_ffn",
}
"""Patterns that exempt one part in every layer. The last one does not match experts:
their modules lie under ``mlp.experts``."""


def quantization(fields: Fields) -> Quantization | None:
    """The published weight format of a config; None without ``quantization_config``."""
    if not fields.has("quantization_config"):
        fields.get("quantization_config")
        return None
    inner = fields.inner("quantization_config")
    method = inner.get("quant_method")
    if not isinstance(method, str) or method not in _READERS:
        inner.refuse("quant_method", one_of(_READERS))
    read = _READERS[method](inner)
    inner.done()
    return read


def _fp8(fields: Fields) -> Quantization:
    """Blocks share a float32 scale; activations are scaled as they come."""
    fields.exactly("activation_scheme", "dynamic")
    fields.exactly("fmt", "e4m3", "float8_e4m3fn")
    fields.exactly("scale_fmt", "ue8m0")
    block = _block(fields, "weight_block_size")
    parts = _parts(fields, "modules_to_not_convert")
    return Quantization(dtype="fp8", block=block, scale_bytes=4, parts=parts)


def _mxfp4(fields: Fields) -> Quantization:
    """OCP microscaling: 32 values in a row share an exponent of one byte.

    Only the experts' matrices are packed, whatever the list leaves open.
    """
    _parts(fields, "modules_to_not_convert")
    return Quantization(dtype="fp4", block=(1, 32), scale_bytes=1, parts=("experts",))


def _compressed(fields: Fields) -> Quantization:
    """compressed-tensors: one group of linear layers, packed 4-bit integers."""
    fields.exactly("format", "pack-quantized")
    fields.exactly("kv_cache_scheme")
    fields.harmless({"quantization_status"})
    groups = fields.inner("config_groups")
    group = groups.inner("group_0")
    groups.done()
    group.exactly("input_activations")
    group.exactly("output_activations")
    group.exactly("targets", ["Linear"])
    size = _integer_group(group.inner("weights"))
    group.done()
    parts = _parts(fields, "ignore")
    return Quantization(dtype="int4", block=(1, size), scale_bytes=2, parts=parts)


_INTEGERS = {
    "num_bits": 4,
    "type": "int",
    "strategy": "group",
    "symmetric": True,
    "dynamic": False,
}


def _integer_group(weights: Fields) -> int:
    """Values in a row that share a 16-bit scale."""
    for name, value in _INTEGERS.items():
        if weights.exactly(name, value) is None:
            weights.refuse(name, f"{shown(value)} is needed")
    for name in ("actorder", "block_structure"):
        weights.exactly(name)
    weights.harmless({"observer", "observer_kwargs"})
    size = weights.whole("group_size")
    weights.done()
    return size


_READERS = {"fp8": _fp8, "mxfp4": _mxfp4, "compressed-tensors": _compressed}


def _block(fields: Fields, name: str) -> tuple[int, int] | None:
    value: Any = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        fields.refuse(name, "rows and columns of a block")
    if not all(type(size) is int and 1 <= size <= 10**6 for size in value):
        fields.refuse(name, "rows and columns of a block, whole numbers from 1")
    return int(value[0]), int(value[1])


def _parts(fields: Fields, name: str) -> tuple[Part, ...]:
    """All parts but those that the list of exempted modules names."""
    listed = fields.get(name)
    if listed is not None and not isinstance(listed, list):
        fields.refuse(name, "a list of module names")
    exempt = set(_exempt(fields, name, listed or []))
    return tuple(part for part in PARTS if part not in exempt)


def _exempt(fields: Fields, name: str, listed: Iterable[Any]) -> Iterable[Part]:
    for i, module in enumerate(listed):
        if isinstance(module, str) and module in _WHOLE:
            yield _WHOLE[module]
        elif not isinstance(module, str) or not _SMALL.fullmatch(
            module.replace("*", "x")
        ):
            refuse(
                fields.source,
                fields.at(f"{name}.{i}"),
                shown(module),
                "a norm, router, vocabulary matrix, or a pattern for a whole part",
            )
