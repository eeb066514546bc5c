"""Which layers see everything and which see a window."""

from __future__ import annotations

from shardwright.ingest.fields import MAX_TOKENS, Fields
from shardwright.ingest.refuse import refuse, shown

FULL = "full_attention"
SLIDING = "sliding_attention"


def windows_of(
    fields: Fields, layers: int, window: int | None, pattern: list[bool]
) -> list[int | None]:
    """The window of every layer, null where a layer sees the whole context.

    ``pattern`` says which layers slide by the architecture's own rule; an explicit
    ``layer_types`` overrides it, as in the reference implementation.
    """
    explicit = fields.get("layer_types")
    if explicit is not None:
        if not isinstance(explicit, list) or len(explicit) > layers:
            fields.refuse("layer_types", f"a list of {layers} layer types is needed")
        pattern = [_slides(fields, i, kind) for i, kind in enumerate(explicit)]
        if len(pattern) != layers:
            fields.refuse("layer_types", f"a list of {layers} layer types is needed")
    if any(pattern) and window is None:
        fields.refuse("sliding_window", "a window is needed: some layers are local")
    return [window if slides else None for slides in pattern]


def _slides(fields: Fields, layer: int, kind: object) -> bool:
    if kind not in (FULL, SLIDING):
        refuse(
            fields.source,
            fields.at(f"layer_types.{layer}"),
            shown(kind),
            f"one of {FULL}, {SLIDING} (other kinds of layers are not read yet)",
        )
    return kind == SLIDING


def uniform_window(fields: Fields, default: int | None) -> int | None:
    """``sliding_window`` of an architecture that slides in every layer or in none.

    Null means none; an absent field takes the class's default.
    """
    if "sliding_window" not in fields.raw:
        return default
    return fields.optional("sliding_window")


def context_of(fields: Fields, default: int | None = None) -> int:
    """Largest context in tokens, with the extension that ``rope_scaling`` states.

    llama3 and longrope configs print the extended length; linear and dynamic
    multiply it; yarn multiplies ``original_max_position_embeddings``. This is how
    vLLM derives its longest model length.
    """
    printed = fields.whole("max_position_embeddings", default, MAX_TOKENS)
    for name in ("rope_scaling", "rope_parameters"):
        if fields.has(name):
            return _extended(fields.inner(name), printed)
        fields.get(name)
    return printed


def _extended(rope: Fields, printed: int) -> int:
    rope.harmless(rope.raw)
    kind = rope.raw.get("rope_type", rope.raw.get("type", "default"))
    if kind in ("default", "llama3", "longrope", "su"):
        return printed
    if kind not in ("linear", "dynamic", "yarn"):
        rope.refuse(
            "rope_type" if "rope_type" in rope.raw else "type",
            "one of default, llama3, longrope, su, linear, dynamic, yarn",
        )
    base = printed
    if kind == "yarn":
        base = rope.whole("original_max_position_embeddings", printed, MAX_TOKENS)
    return min(int(base * _factor(rope)), MAX_TOKENS)


def _factor(rope: Fields) -> float:
    value = rope.raw.get("factor")
    if not isinstance(value, int | float) or not 1 <= value <= 1000:
        refuse(rope.source, rope.at("factor"), shown(value), "a number from 1 to 1000")
    return float(value)
