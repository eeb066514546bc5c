"""The parallel shape of one stage: how attention and experts share its GPUs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class StageShape:
    """tp * attn_dp * cp = moe_tp * ep * moe_dp = GPUs of the stage.

    ``redundant`` expert slots are added over the stage; ``islands`` is how many
    islands its GPUs spread over, equally many on each. With ``expert_gpus`` the stage
    is disaggregated: that many GPUs of their own hold the routed experts (moe_tp * ep
    of them), tp * attn_dp others everything else, and a micro-batch is worked off in
    ``ping_pong`` parts. ``kv_shards`` is 1 or cp: over how many of a context group's
    ranks the KV cache of a sequence is cut.
    """

    tp: int
    attn_dp: int = 1
    moe_tp: int = 1
    ep: int = 1
    moe_dp: int = 1
    redundant: int = 0
    islands: int = 1
    expert_gpus: int = 0
    ping_pong: int = 1
    cp: int = 1
    kv_shards: int = 1

    @classmethod
    def dense(cls, tp: int, cp: int = 1, kv_shards: int = 1) -> StageShape:
        """Tensor parallelism, and copies of the weights over a context group."""
        return cls(tp=tp, moe_tp=tp, moe_dp=cp, cp=cp, kv_shards=kv_shards)

    @property
    def gpus(self) -> int:
        """GPUs of the stage."""
        return self.attention_gpus + self.expert_gpus

    @property
    def attention_gpus(self) -> int:
        """GPUs of the attention ranks; all of the stage's, unless disaggregated."""
        return self.tp * self.attn_dp * self.cp

    @property
    def ranks_per_copy(self) -> int:
        """Attention ranks of tp GPUs that one copy of the experts serves."""
        return self.attn_dp * self.cp // self.moe_dp

    @property
    def disaggregated(self) -> bool:
        """Whether routed experts have GPUs of their own."""
        return self.expert_gpus > 0

    @property
    def for_attention_memory(self) -> StageShape:
        """What the memory of an attention GPU depends on; equal for many shapes."""
        if not self.disaggregated:
            return self
        return StageShape(self.tp, self.attn_dp, expert_gpus=1)

    @property
    def gpus_per_island(self) -> int:
        """GPUs of the stage on each of its islands."""
        return self.gpus // self.islands
