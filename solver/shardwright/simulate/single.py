"""Iteration loop of a replica of one stage."""

from __future__ import annotations

import heapq

from shardwright.simulate.machine import Machine
from shardwright.simulate.requests import Requests
from shardwright.simulate.room import KvRoom
from shardwright.simulate.serving import Serving
from shardwright.simulate.trace import Log


class SingleStage(Serving):
    """Decodes first, then prompt chunks in order of arrival; one step at a time.

    Every running request gains a token per step, so a heap on the step in which each
    ends makes a step cost O(log n); steps without events between are taken at once.
    """

    def __init__(self, machine: Machine, requests: Requests, prompts: bool) -> None:
        super().__init__(machine, requests, prompts)
        law = machine.stages[0]
        self.alpha, self.kappa, self.beta = law.alpha_s, law.kappa_s, law.beta_s
        self.batch: list[tuple[int, int]] = []
        self.step = 0

    def run(self) -> Log:
        """Until every request is done."""
        now, log = 0.0, self.log
        while True:
            while self.arrival[self.next] <= now:
                self.waiting.append(self.next)
                self.next += 1
            if self.waiting:
                self._admit(now)
            if not self.batch and not self.prefilling:
                if self.next == len(self.done):
                    break
                now = self.arrival[self.next]
                continue
            if self.room is not None:
                self._make_room(self.room)
            sequences = len(self.batch)
            tokens, finished = self.take_chunk(now)
            seconds = self.alpha + self.kappa * sequences + self.beta * tokens
            steps = 1 if tokens else self._quiet_steps(now, seconds)
            now += steps * seconds
            self.step += steps
            if sequences:
                log.interval_s.append(seconds)
                log.interval_count.append(sequences * steps)
                log.interval_end_s.append(now)
            if self.room is not None:
                self.room.used += sequences * steps
            log.busy_s += steps * seconds
            log.busy_sequences_s += sequences * steps * seconds
            if sequences + len(self.prefilling) + len(finished) >= self.slots:
                log.full_s += steps * seconds
            for request in finished:
                self._start(request, now)
            self._end(now)
        return self.closed_log()

    def _admit(self, now: float) -> None:
        taken = len(self.batch) + len(self.prefilling)
        while self.waiting and taken < self.slots:
            request = self.waiting[0]
            if self.room is not None:
                if not self.room.admits(self.context[request]):
                    return
                self.room.admit(request, self.context[request])
            self.waiting.popleft()
            taken += 1
            if self.prompts or self.left[request]:
                self.prefilling.append(request)
            else:
                self._start(request, now)

    def _quiet_steps(self, now: float, seconds: float) -> int:
        """Steps until a request ends or a new one can be taken in."""
        steps = self.batch[0][0] - self.step
        if len(self.batch) < self.slots:
            until = self.arrival[self.next] - now
            if until < steps * seconds:
                steps = max(1, -int(-until // seconds))
        if self.room is not None:
            steps = max(1, min(steps, self.room.steps_left(len(self.batch))))
        return steps

    def _start(self, request: int, now: float) -> None:
        if self.first[request] != self.first[request]:
            self.first[request] = now
        if self.steps[request]:
            heapq.heappush(self.batch, (self.step + self.steps[request], request))
            if self.room is not None:
                self.room.starts(request, self.step)
            return
        self.done[request] = now
        if self.room is not None:
            self.room.leaves(request, self.step)

    def _end(self, now: float) -> None:
        while self.batch and self.batch[0][0] <= self.step:
            request = heapq.heappop(self.batch)[1]
            self.done[request] = now
            if self.room is not None:
                self.room.leaves(request, self.step)

    def _make_room(self, room: KvRoom) -> None:
        while len(self.batch) > 1 and room.steps_left(len(self.batch)) < 1:
            request, steps, tokens = room.evict(self.batch, self.step)
            self.steps[request], self.left[request] = steps, tokens
            self.context[request] = tokens
            self.waiting.appendleft(request)
            self.log.preemptions += 1
