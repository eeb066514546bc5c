"""A closed pipeline, event by event, and the period that it settles into.

Micro-batches circulate through stages of one server each with room for all that wait;
between two stages lies a hop that delays and never blocks. The simulation shares
nothing with the law that it checks: a heap of events, integers of nanoseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from random import Random

MOST_EVENTS = 400_000


@dataclass(frozen=True)
class Pipeline:
    """Stage times, hops between stages, and the way back to the first, in ns."""

    micro_batches: int
    stage_ns: tuple[int, ...]
    hops_ns: tuple[int, ...]
    return_ns: int

    @property
    def delays_ns(self) -> tuple[int, ...]:
        """Delay behind every stage; a single stage has no way back to travel."""
        back = self.return_ns if len(self.stage_ns) > 1 else 0
        return (*self.hops_ns, back)

    def starts(self) -> Iterator[tuple[int, int, int]]:
        """(time, stage, micro-batch) of every start of service, in time order.

        All micro-batches wait at the first stage at time 0.
        """
        stages, delays, tie = len(self.stage_ns), self.delays_ns, count()
        waiting = [deque[int]() for _ in range(stages)]
        busy = [False] * stages
        heap = [(0, next(tie), "arrives", 0, b) for b in range(self.micro_batches)]
        while heap:
            now, _, what, stage, batch = heappop(heap)
            if what == "arrives":
                waiting[stage].append(batch)
            else:
                busy[stage] = False
                there = (now + delays[stage], next(tie), "arrives")
                heappush(heap, (*there, (stage + 1) % stages, batch))
            if waiting[stage] and not busy[stage]:
                served = waiting[stage].popleft()
                busy[stage] = True
                done = (now + self.stage_ns[stage], next(tie), "done", stage, served)
                heappush(heap, done)
                yield now, stage, served


def settled_period_ns(pipeline: Pipeline) -> int:
    """Time between two visits of one micro-batch to one stage, once it repeats.

    The start times form a (max, +)-linear recursion whose memory is the last q starts
    of every stage. When these all lie one and the same time after the q starts before
    them, the recursion repeats itself for ever: the period is proven, not sampled.
    """
    q, stages = pipeline.micro_batches, len(pipeline.stage_ns)
    starts: list[list[int]] = [[] for _ in range(stages)]
    for events, (now, stage, batch) in enumerate(pipeline.starts()):
        assert batch == len(starts[stage]) % q, "one micro-batch overtook another"
        starts[stage].append(now)
        if events > MOST_EVENTS:
            raise AssertionError(f"no period within {MOST_EVENTS} starts: {pipeline}")
        if stage == stages - 1 and len(starts[-1]) % q == 0:
            period = _common_shift([s[: len(starts[-1])] for s in starts], q)
            if period is not None:
                return period
    raise AssertionError("a closed pipeline never ends")


def _common_shift(starts: Sequence[Sequence[int]], q: int) -> int | None:
    """The one distance of the last 2q starts of every stage from those q earlier."""
    if len(starts[0]) < 3 * q:
        return None
    shifts = {s[-i] - s[-i - q] for s in starts for i in range(1, 2 * q + 1)}
    return shifts.pop() if len(shifts) == 1 else None


def chunks_through_ns(
    chunks: int, stage_ns: Sequence[int], hops_ns: Sequence[int]
) -> int:
    """When the last of ``chunks`` that enter together leaves the last stage."""
    ready = [0] * chunks
    for stage, service in enumerate(stage_ns):
        free = 0
        for i, at in enumerate(ready):
            free = max(free, at) + service
            ready[i] = free
        hop = hops_ns[stage] if stage < len(hops_ns) else 0
        ready = [at + hop for at in ready]
    return ready[-1]


def random_pipeline(rng: Random) -> Pipeline:
    """1 to 6 stages, 1 to 8 micro-batches, hops from none to longer than a stage."""
    stages, longest = rng.randint(1, 6), rng.choice((3, 20, 1000))
    hop = rng.choice((0, longest // 4, 2 * longest))
    return Pipeline(
        rng.randint(1, 8),
        tuple(rng.randint(1, longest) for _ in range(stages)),
        tuple(rng.randint(0, hop) for _ in range(stages - 1)),
        rng.randint(0, hop),
    )
