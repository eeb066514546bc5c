"""What every iteration loop knows of its requests."""

from __future__ import annotations

from collections import deque

from shardwright.simulate.machine import Machine
from shardwright.simulate.requests import Requests
from shardwright.simulate.room import KvRoom
from shardwright.simulate.trace import Log

NEVER = float("inf")
NAN = float("nan")


class Serving:
    """Requests of one replica: waiting, taking in their prompts, or done.

    ``next`` is the first that has not arrived; ``left`` prompt tokens to compute.
    """

    def __init__(self, machine: Machine, requests: Requests, prompts: bool) -> None:
        self.slots, self.chunk = machine.slots, machine.chunk_tokens
        self.room = None if machine.kv_tokens is None else KvRoom(machine.kv_tokens)
        self.arrival = [*requests.arrival_s.tolist(), NEVER]
        self.left = requests.prompt.tolist() if prompts else [0] * len(requests)
        self.context = requests.context.tolist()
        self.steps = (requests.output - 1).tolist()
        self.log = Log.of(len(requests))
        self.prompts = prompts
        self.first: list[float] = [NAN] * len(requests)
        self.done: list[float] = [NAN] * len(requests)
        self.scheduled: list[float] = [NAN] * len(requests)
        self.waiting: deque[int] = deque()
        self.prefilling: deque[int] = deque()
        self.next = 0

    def take_chunk(self, now: float) -> tuple[int, list[int]]:
        """Prompt tokens of this step, and the requests whose prompt ends with it."""
        tokens, finished = 0, []
        while self.prefilling and tokens < self.chunk:
            request = self.prefilling[0]
            if self.scheduled[request] != self.scheduled[request]:
                self.scheduled[request] = now
            part = min(self.left[request], self.chunk - tokens)
            self.left[request] -= part
            tokens += part
            if self.left[request]:
                break
            finished.append(self.prefilling.popleft())
        return tokens, finished

    def closed_log(self) -> Log:
        """The log with the times of every request."""
        self.log.first_s[:], self.log.done_s[:] = self.first, self.done
        self.log.scheduled_s[:] = self.scheduled
        return self.log
