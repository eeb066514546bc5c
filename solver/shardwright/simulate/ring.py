"""Pipelined replica: q micro-batches go round through all stages."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

from shardwright.simulate.machine import Machine
from shardwright.simulate.requests import Requests
from shardwright.simulate.room import KvRoom
from shardwright.simulate.serving import NAN, NEVER, Serving
from shardwright.simulate.trace import Log


@dataclass(eq=False)
class MicroBatch:
    """Sequences that decode together: a heap of (lap in which it ends, request)."""

    ready_s: float = 0.0
    lap: int = 0
    batch: list[tuple[int, int]] = field(default_factory=list)
    joined: list[float] = field(default_factory=list)
    last_s: float = NAN


class Ring(Serving):
    """Micro-batches pass the stages in order, first come first served at each.

    A micro-batch is formed when the first stage is free: its own decodes, and prompt
    chunks from the one queue, so that chunks of a long prompt follow one another
    through the pipeline. After its first token a request joins the smallest
    micro-batch.
    """

    def __init__(self, machine: Machine, requests: Requests, prompts: bool) -> None:
        super().__init__(machine, requests, prompts)
        self.stages = [
            (s.alpha_s, s.kappa_s, s.beta_s, h.alpha_s, h.kappa_s, h.beta_s)
            for s, h in (
                (stage, machine.hop(i)) for i, stage in enumerate(machine.stages)
            )
        ]
        self.free = [0.0] * len(self.stages)
        self.laps = [MicroBatch() for _ in range(machine.micro_batches)]
        self.joining: deque[tuple[float, int]] = deque()
        self.leaving: deque[tuple[float, int, int]] = deque()
        self.taken = 0
        self.now = 0.0

    def run(self) -> Log:
        """Until every request is done."""
        while True:
            start, lap = self._next_start()
            if lap is None:
                if start == NEVER:
                    break
                self._advance(start)
                continue
            self._advance(start)
            self._pass(start, lap)
            self._alone(lap)
        return self.closed_log()

    def _next_start(self) -> tuple[float, MicroBatch | None]:
        """Next start at the first stage, and who; or a time when things change."""
        stage = self.free[0]
        decoding = [lap for lap in self.laps if lap.batch]
        chosen = min(decoding, key=lambda lap: lap.ready_s, default=None)
        start = NEVER if chosen is None else max(stage, chosen.ready_s)
        change = self.joining[0][0] if self.joining else NEVER
        idle = None
        if len(decoding) < len(self.laps):
            empty = (lap for lap in self.laps if not lap.batch)
            idle = min(empty, key=lambda lap: lap.ready_s)
        if idle is not None:
            early = max(stage, idle.ready_s, self.now)
            if not self.prefilling:
                change = min(change, max(early, self._next_admission()))
            elif early < start:
                start, chosen = early, idle
        # things that change by then may alter what the micro-batch carries
        return (start, chosen) if start < change else (change, None)

    def _next_admission(self) -> float:
        """When the next request can be taken in."""
        comes = 0.0 if self.waiting else self.arrival[self.next]
        if self.taken < self.slots and not (self.waiting and self.room is not None):
            return comes
        return max(comes, self.leaving[0][0]) if self.leaving else NEVER

    def _advance(self, now: float) -> None:
        """Everything that has happened by ``now``."""
        self.now = now
        while self.leaving and self.leaving[0][0] <= now:
            _, request, step = self.leaving.popleft()
            self.taken -= 1
            if self.room is not None:
                self.room.leaves(request, step)
        while self.joining and self.joining[0][0] <= now:
            self._join(*self.joining.popleft())
        while self.arrival[self.next] <= now:
            self.waiting.append(self.next)
            self.next += 1
        while self.waiting and self.taken < self.slots and self._admit(now):
            pass

    def _admit(self, now: float) -> bool:
        request = self.waiting[0]
        if self.room is not None:
            if not self.room.admits(self.context[request]):
                return False
            self.room.admit(request, self.context[request])
        self.waiting.popleft()
        self.taken += 1
        if self.prompts or self.left[request]:
            self.prefilling.append(request)
            return True
        if self.first[request] != self.first[request]:
            self.first[request] = now
        if self.steps[request]:
            self._join(now, request)
        else:
            self.done[request] = now
            self.leaving.append((now, request, 0))
        return True

    def _join(self, now: float, request: int) -> None:
        lap = min(self.laps, key=lambda lap: len(lap.batch))
        if not lap.batch:
            lap.ready_s = max(lap.ready_s, now)
        heapq.heappush(lap.batch, (lap.lap + self.steps[request], request))
        lap.joined.append(self.first[request])
        if self.room is not None:
            self.room.starts(request, lap.lap)

    def _pass(self, start: float, lap: MicroBatch) -> None:
        """One micro-batch through all stages."""
        if self.room is not None and lap.batch:
            self._make_room(self.room, lap)
        sequences = len(lap.batch)
        tokens, finished = self.take_chunk(start)
        at = start
        for s, (alpha, kappa, beta, ha, hk, hb) in enumerate(self.stages):
            begin = at if at > self.free[s] else self.free[s]
            end = begin + alpha + kappa * sequences + beta * tokens
            self.free[s] = end
            at = end + ha + hk * sequences + hb * tokens
        if not tokens and not sequences:
            return
        lap.ready_s, lap.lap = at, lap.lap + 1
        self._record(lap, sequences, end)
        for request in finished:
            if self.first[request] != self.first[request]:
                self.first[request] = end
            if self.steps[request]:
                self.joining.append((at, request))
            else:
                self.done[request] = end
                self.leaving.append((at, request, 0))
        while lap.batch and lap.batch[0][0] <= lap.lap:
            request = heapq.heappop(lap.batch)[1]
            self.done[request] = end
            self.leaving.append((at, request, lap.lap))

    def _alone(self, lap: MicroBatch) -> None:
        """All laps at once in which nothing else happens to the only micro-batch."""
        busy = self.prefilling or self.joining or self.waiting or self.leaving
        if busy or not lap.batch:
            return
        if any(other.batch for other in self.laps if other is not lap):
            return
        sequences = len(lap.batch)
        seconds = sum(
            alpha + kappa * sequences + ha + hk * sequences
            for alpha, kappa, _, ha, hk, _ in self.stages
        )
        # the last lap before a change is left to the loop
        steps = lap.batch[0][0] - lap.lap - 1
        until = (self.arrival[self.next] - lap.ready_s) / seconds
        steps = min(steps, int(until) - 1) if until < steps + 1 else steps
        if self.room is not None:
            steps = min(steps, self.room.steps_left(sequences) - 1)
        if steps <= 0:
            return
        if self.room is not None:
            self.room.used += sequences * steps
        shift = steps * seconds
        self.log.interval_s.append(seconds)
        self.log.interval_count.append(sequences * steps)
        self.log.interval_end_s.append(lap.last_s + shift)
        self.log.busy_sequences_s += sequences * shift
        lap.lap += steps
        lap.ready_s += shift
        lap.last_s += shift
        self.free = [free + shift for free in self.free]

    def _record(self, lap: MicroBatch, sequences: int, end: float) -> None:
        log, stayed = self.log, sequences - len(lap.joined)
        if stayed > 0:
            log.interval_s.append(end - lap.last_s)
            log.interval_count.append(stayed)
            log.interval_end_s.append(end)
            log.busy_sequences_s += stayed * (end - lap.last_s)
        for first in lap.joined:
            log.interval_s.append(end - first)
            log.interval_count.append(1)
            log.interval_end_s.append(end)
            log.busy_sequences_s += end - first
        lap.joined.clear()
        lap.last_s = end
        if self.room is not None:
            self.room.used += sequences

    def _make_room(self, room: KvRoom, lap: MicroBatch) -> None:
        while len(lap.batch) > 1 and room.steps_left(len(lap.batch)) < 1:
            request, steps, tokens = room.evict(lap.batch, lap.lap)
            self.steps[request], self.left[request] = steps, tokens
            self.context[request] = tokens
            self.waiting.appendleft(request)
            self.taken -= 1
            self.log.preemptions += 1
