"""How long and how hard to search: deadline, tolerance, seed. No clock but this one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Deadline:
    """A moment on an injectable clock, in seconds; `at` None never comes."""

    at: float | None = None
    clock: Callable[[], float] = field(default=time.monotonic)

    @classmethod
    def after(
        cls, seconds: float | None, clock: Callable[[], float] = time.monotonic
    ) -> Deadline:
        """The moment `seconds` from now, or none."""
        return cls(None if seconds is None else clock() + seconds, clock)

    def remaining(self) -> float:
        """Seconds left; infinite without a moment, never negative."""
        return float("inf") if self.at is None else max(0.0, self.at - self.clock())

    def expired(self) -> bool:
        """True once nothing is left."""
        return self.remaining() <= 0.0


@dataclass(frozen=True)
class Effort:
    """Search parameters.

    tolerance: a row is done once its busiest GPU is within (1 + tolerance) * bound.
    restarts: batches of perturbed starts for rows that are not done; 0 is one pass.
    rounds: rounds of pairwise exchange per start.
    width: perturbed starts per batch, over all open rows together.
    proof_s: seconds per layer for a proof at two slots per GPU; 0 for none.
    exact_s: seconds per row for enumerating small rows.
    """

    tolerance: float = 2e-4
    restarts: int = 40
    width: int = 768
    rounds: int = 80
    proof_s: float = 10.0
    exact_s: float = 2.0
    workers: int = 2
    seed: int = 0
    deadline: Deadline = field(default_factory=Deadline)

    def but(self, **changes: object) -> Effort:
        """This effort with some fields replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]


FAST = Effort(tolerance=1e-3, restarts=0, rounds=20, proof_s=0.0)
