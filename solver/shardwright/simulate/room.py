"""KV room of a replica: admission, growth, and who has to leave when it is full."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field


@dataclass(eq=False)
class KvRoom:
    """Tokens held. A prompt is admitted when it fits; decodes take one token each.

    When the next tokens do not fit, the sequence that came last gives all of its room
    back and is computed anew later, as engines do.
    """

    capacity: int
    used: int = 0
    held: dict[int, int] = field(default_factory=dict)
    since: dict[int, int] = field(default_factory=dict)

    def admits(self, context: int) -> bool:
        """Whether a prompt fits now; one alone always does."""
        return not self.held or self.used + context <= self.capacity

    def admit(self, request: int, context: int) -> None:
        """Take room for a prompt."""
        self.held[request] = context
        self.used += context

    def starts(self, request: int, step: int) -> None:
        """Decoding begins: from now on a token per step."""
        self.since[request] = step

    def leaves(self, request: int, step: int) -> int:
        """Give all room of a request back; returns its tokens."""
        tokens = self.held.pop(request) + step - self.since.pop(request, step)
        self.used -= tokens
        return tokens

    def steps_left(self, batch: int) -> int:
        """Steps of a batch until the room is full."""
        return (self.capacity - self.used) // batch

    def evict(self, batch: list[tuple[int, int]], step: int) -> tuple[int, int, int]:
        """Latest arrival of a batch leaves: request, steps it lacks, its tokens."""
        victim = max(batch, key=lambda entry: entry[1])
        batch.remove(victim)
        heapq.heapify(batch)
        return victim[1], victim[0] - step, self.leaves(victim[1], step)
