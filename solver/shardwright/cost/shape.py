"""The parallel shape of one stage: how attention and experts share its GPUs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class StageShape:
    """tp * attn_dp = moe_tp * ep * moe_dp = GPUs of the stage.

    ``redundant`` expert slots are added over the stage; ``islands`` is how many
    islands its GPUs spread over, equally many on each.
    """

    tp: int
    attn_dp: int = 1
    moe_tp: int = 1
    ep: int = 1
    moe_dp: int = 1
    redundant: int = 0
    islands: int = 1

    @classmethod
    def dense(cls, tp: int) -> StageShape:
        """Tensor parallelism alone."""
        return cls(tp=tp, moe_tp=tp)

    @property
    def gpus(self) -> int:
        """GPUs of the stage."""
        return self.tp * self.attn_dp

    @property
    def gpus_per_island(self) -> int:
        """GPUs of the stage on each of its islands."""
        return self.gpus // self.islands
