"""What a simulated replica leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from shardwright.simulate.requests import FloatArray


@dataclass(eq=False)
class Log:
    """Times per request (NaN: never), and token intervals with how many had them."""

    first_s: FloatArray
    done_s: FloatArray
    scheduled_s: FloatArray
    interval_s: list[float] = field(default_factory=list)
    interval_count: list[int] = field(default_factory=list)
    interval_end_s: list[float] = field(default_factory=list)
    preemptions: int = 0
    busy_sequences_s: float = 0.0
    busy_s: float = 0.0
    full_s: float = 0.0

    @classmethod
    def of(cls, count: int) -> Log:
        """An empty log for ``count`` requests."""
        first, done, scheduled = (np.full(count, np.nan) for _ in range(3))
        return cls(first, done, scheduled)
