"""Dense decoder architectures: their config fields into a stack of layer kinds.

Defaults are those of each architecture's config class in transformers; they hold
when a field is absent because the published files omit default values. A default
is given only where the class's default is the meaning of an absent field for every
size of the family; sizes themselves are always required.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardwright.ingest.fields import MAX_LAYERS, MAX_TOKENS, Fields
from shardwright.ingest.patterns import context_of, uniform_window, windows_of
from shardwright.schema.model import Attention, DenseFfn, LayerKind

HARMLESS = frozenset(
    {
        "_attn_implementation_autoset",
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "auto_map",
        "bos_token_id",
        "dtype",
        "embd_pdrop",
        "eos_token_id",
        "hidden_act",
        "hidden_activation",
        "initializer_range",
        "model_type",
        "pad_token_id",
        "pretraining_tp",
        "resid_pdrop",
        "rms_norm_eps",
        "rope_theta",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""Fields of no consequence for sizes and costs: tokens, training, numerics."""


@dataclass(frozen=True)
class Stack:
    """What an architecture reader returns; the rest of a ModelSpec is common.

    ``final_norm_width`` None: one norm of the hidden size.
    """

    hidden: int
    vocabulary: int
    tied_embeddings: bool
    max_position_tokens: int
    layers: list[LayerKind]
    final_norm_width: int | None = None
    lm_head_bias: bool = False
    mtp_layers: int = 0
    mtp_kind: str | None = None


@dataclass(frozen=True)
class Frame:
    """Sizes that every dense architecture writes in the same words."""

    hidden: int
    heads: int
    layers: int
    vocabulary: int

    @classmethod
    def of(cls, fields: Fields) -> Frame:
        fields.harmless(HARMLESS)
        return cls(
            hidden=fields.whole("hidden_size"),
            heads=fields.whole("num_attention_heads"),
            layers=fields.whole("num_hidden_layers", most=MAX_LAYERS),
            vocabulary=fields.whole("vocab_size"),
        )

    def head_dim(self, fields: Fields, default: int | None = None) -> int:
        """``head_dim``; absent or null it is the default or hidden/heads."""
        if fields.has("head_dim") or default is not None:
            return fields.whole("head_dim", default)
        fields.get("head_dim")
        if self.hidden % self.heads:
            fields.refuse(
                "head_dim",
                f"needed: hidden_size {self.hidden} is no multiple of "
                f"num_attention_heads {self.heads}",
            )
        return self.hidden // self.heads

    def kv_heads(self, fields: Fields, default: int | None = None) -> int:
        """``num_key_value_heads``, which must divide the heads."""
        kv_heads = fields.whole("num_key_value_heads", default)
        if self.heads % kv_heads:
            fields.refuse("num_key_value_heads", f"a divisor of {self.heads} heads")
        return kv_heads


def uniform(
    fields: Fields, frame: Frame, attention: Attention, ffn: DenseFfn,
    windows: list[int | None], norms: int = 2, tied: bool = False,
    context: int | None = None,
) -> Stack:  # fmt: skip
    """A stack whose layers differ by their window at most.

    ``tied`` is the meaning of an absent ``tie_word_embeddings``.
    """
    one_kind = len(set(windows)) == 1
    kinds = {
        window: LayerKind(
            name="layer" if one_kind else "global" if window is None else "local",
            attention=attention.model_copy(update={"window_tokens": window}),
            ffn=ffn,
            norm_width=norms * frame.hidden,
        )
        for window in set(windows)
    }
    return Stack(
        hidden=frame.hidden,
        vocabulary=frame.vocabulary,
        tied_embeddings=fields.flag("tie_word_embeddings", tied),
        max_position_tokens=context or context_of(fields),
        layers=[kinds[window] for window in windows],
    )


def llama(fields: Fields) -> Stack:
    """LlamaForCausalLM (Llama 2, 3, 3.1; Yi; CodeLlama). Absent kv heads: one each."""
    frame = Frame.of(fields)
    bias = fields.flag("attention_bias", False)
    attention = Attention(
        heads=frame.heads,
        kv_heads=frame.kv_heads(fields, frame.heads),
        head_dim=frame.head_dim(fields),
        qkv_bias=bias,
        output_bias=bias,
    )
    ffn = DenseFfn(
        intermediate=fields.whole("intermediate_size"),
        bias=fields.flag("mlp_bias", False),
    )
    return uniform(fields, frame, attention, ffn, [None] * frame.layers)


def mistral(fields: Fields) -> Stack:
    """MistralForCausalLM: every layer slides, or none (``sliding_window`` null)."""
    frame = Frame.of(fields)
    attention = Attention(
        heads=frame.heads,
        kv_heads=frame.kv_heads(fields),
        head_dim=frame.head_dim(fields),
    )
    ffn = DenseFfn(intermediate=fields.whole("intermediate_size"))
    window = uniform_window(fields, default=4096)
    return uniform(fields, frame, attention, ffn, [window] * frame.layers)


def phi3(fields: Fields) -> Stack:
    """Phi3ForCausalLM (Phi-3, Phi-4): q, k, v and gate, up are fused, same sizes."""
    frame = Frame.of(fields)
    fields.exactly("attention_bias", False)
    fields.harmless({"original_max_position_embeddings", "partial_rotary_factor"})
    attention = Attention(
        heads=frame.heads,
        kv_heads=frame.kv_heads(fields, frame.heads),
        head_dim=frame.head_dim(fields),
    )
    ffn = DenseFfn(intermediate=fields.whole("intermediate_size"))
    window = uniform_window(fields, default=None)
    return uniform(fields, frame, attention, ffn, [window] * frame.layers)


def qwen2(fields: Fields) -> Stack:
    """Qwen2ForCausalLM (Qwen2, Qwen2.5): q, k, v have biases though no key says so."""
    frame = Frame.of(fields)
    fields.exactly("attention_bias", True)
    attention = Attention(
        heads=frame.heads,
        kv_heads=frame.kv_heads(fields),
        head_dim=frame.head_dim(fields),
        qkv_bias=True,
    )
    ffn = DenseFfn(intermediate=fields.whole("intermediate_size"))
    return uniform(fields, frame, attention, ffn, qwen_windows(fields, frame.layers))


def qwen3(fields: Fields) -> Stack:
    """Qwen3ForCausalLM: q and k are normalised per head, no bias by default."""
    frame = Frame.of(fields)
    bias = fields.flag("attention_bias", False)
    head_dim = frame.head_dim(fields, default=128)
    attention = Attention(
        heads=frame.heads,
        kv_heads=frame.kv_heads(fields),
        head_dim=head_dim,
        qkv_bias=bias,
        output_bias=bias,
        qk_norm_width=2 * head_dim,
    )
    ffn = DenseFfn(intermediate=fields.whole("intermediate_size"))
    return uniform(fields, frame, attention, ffn, qwen_windows(fields, frame.layers))


def qwen_windows(fields: Fields, layers: int) -> list[int | None]:
    """Layers from ``max_window_layers`` on slide, if ``use_sliding_window`` is set."""
    window = fields.optional("sliding_window")
    slides = fields.flag("use_sliding_window", False)
    first = fields.get("max_window_layers")
    first = 28 if first is None else first
    if type(first) is not int or first < 0:
        fields.refuse("max_window_layers", "a whole number from 0")
    if not slides:
        return windows_of(fields, layers, None, [False] * layers)
    # without a window the switch has no effect, as in the reference implementation
    pattern = [window is not None and i >= first for i in range(layers)]
    return windows_of(fields, layers, window, pattern)


def gemma3(fields: Fields) -> Stack:
    """Gemma3ForCausalLM and the text part of Gemma3ForConditionalGeneration.

    Embeddings are tied though the key is absent; q and k are normalised per head;
    four norms per layer; every ``sliding_window_pattern``-th layer is global. The
    context is printed with its rope extension.
    """
    frame = Frame.of(fields)
    fields.exactly("attention_bias", False)
    fields.exactly("use_bidirectional_attention", False)
    fields.harmless(
        {"attn_logit_softcapping", "cache_implementation", "final_logit_softcapping",
         "query_pre_attn_scalar", "rope_local_base_freq", "rope_parameters",
         "rope_scaling"}
    )  # fmt: skip
    head_dim = frame.head_dim(fields, default=256)
    attention = Attention(
        heads=frame.heads,
        kv_heads=frame.kv_heads(fields),
        head_dim=head_dim,
        qk_norm_width=2 * head_dim,
    )
    ffn = DenseFfn(intermediate=fields.whole("intermediate_size"))
    every = fields.whole("sliding_window_pattern", default=6)
    pattern = [(i + 1) % every != 0 for i in range(frame.layers)]
    window = fields.optional("sliding_window")
    windows = windows_of(fields, frame.layers, window, pattern)
    context = fields.whole("max_position_embeddings", 131_072, MAX_TOKENS)
    return uniform(
        fields, frame, attention, ffn, windows, norms=4, tied=True, context=context
    )
