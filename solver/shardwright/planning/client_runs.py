"""A benchmark client's run, request by request: what its TTFT was, burst and all.

A published TTFT is a mean (or a median) over one finite run: clients that all start at
once, prompts that come in waves where lengths are alike, a queue that has grown when
the last request arrives. The closed forms of ``cost.serving`` are steady states; here
the run itself is played through, on the same iteration times. Times in seconds.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_ENDLESS = float("inf")


@dataclass(frozen=True)
class Steps:
    """Seconds of an iteration by decoding sequences (rows) and prompt tokens.

    Both axes ascend from zero; between their points times are linear, beyond the last
    they go on with its slope.
    """

    sequences: list[float]
    tokens: list[float]
    seconds: list[list[float]]

    def at(self, sequences: float, tokens: float) -> float:
        """Seconds of one iteration."""
        i, f = _between(self.sequences, sequences)
        j, g = _between(self.tokens, tokens)
        low, high = self.seconds[i], self.seconds[i + 1]
        first = low[j] + g * (low[j + 1] - low[j])
        return first + f * (high[j] + g * (high[j + 1] - high[j]) - first)


def _between(axis: list[float], value: float) -> tuple[int, float]:
    i = min(max(bisect_right(axis, value) - 1, 0), len(axis) - 2)
    return i, (value - axis[i]) / (axis[i + 1] - axis[i])


@dataclass(frozen=True)
class Requests:
    """Requests in the order in which they are sent: arrival (s), tokens in and out.

    With ``clients`` the arrivals are not read: so many requests start at once, every
    other one when another is complete.
    """

    prompt: list[float]
    output: list[int]
    arrival: list[float]
    clients: int | None = None

    def __len__(self) -> int:
        return len(self.prompt)


@dataclass(frozen=True)
class Engine:
    """One replica: ``slots`` sequences, ``budget`` tokens of an iteration.

    ``piece`` is the most of one prompt in an iteration. ``prompts_first``: prompts run
    alone while decoding waits (SGLang); otherwise both share an iteration.
    """

    steps: Steps
    slots: int
    budget: float
    piece: float
    prompts_first: bool = False


class _Source:
    """Hands out requests: on their arrival, or when one is complete."""

    def __init__(self, requests: Requests) -> None:
        self.requests = requests
        clients = requests.clients
        self.sent = [0.0] * len(requests)
        self.next = 0
        self.open = clients is None
        self.waiting: deque[int] = deque()
        if clients is not None:
            self.next = min(clients, len(requests))
            self.waiting.extend(range(self.next))

    def arrive(self, now: float) -> None:
        """Open loop: everything that has come by now waits."""
        arrival = self.requests.arrival
        while self.open and self.next < len(arrival) and arrival[self.next] <= now:
            self.sent[self.next] = arrival[self.next]
            self.waiting.append(self.next)
            self.next += 1

    def complete(self, now: float) -> None:
        """Closed loop: the client sends its next request."""
        if not self.open and self.next < len(self.requests):
            self.sent[self.next] = now
            self.waiting.append(self.next)
            self.next += 1

    def upcoming(self) -> float:
        """When the next one arrives by itself."""
        if self.open and self.next < len(self.requests):
            return self.requests.arrival[self.next]
        return _ENDLESS


@dataclass(frozen=True)
class Times:
    """Per request: until the first token, and between tokens; and the whole run."""

    first_s: FloatArray
    token_s: FloatArray
    run_s: float


def played(engine: Engine, requests: Requests) -> Times:
    """The run on one replica, first come first served."""
    source, total = _Source(requests), len(requests)
    left = list(requests.prompt)
    first, last = [0.0] * total, [0.0] * total
    batch: list[tuple[int, int]] = []
    now, step, done = 0.0, 0, 0
    while done < total:
        source.arrive(now)
        if source.waiting and len(batch) < engine.slots:
            tokens, ended = _prompts(engine, source.waiting, left, len(batch))
            beside = 0 if engine.prompts_first else len(batch)
            now += engine.steps.at(beside, tokens)
            step += 0 if engine.prompts_first else 1
            for request in ended:
                first[request] = now
                heapq.heappush(batch, (step + requests.output[request] - 1, request))
        elif batch:
            seconds = engine.steps.at(len(batch), 0.0)
            count = max(batch[0][0] - step, 1)
            if len(batch) < engine.slots:
                until = (source.upcoming() - now) / seconds
                count = max(1, min(count, int(min(until, 1e12)) + 1))
            now, step = now + count * seconds, step + count
        else:
            now = source.upcoming()
        while batch and batch[0][0] <= step:
            last[heapq.heappop(batch)[1]] = now
            done += 1
            source.complete(now)
    return _times(requests, source.sent, first, last, now)


def _prompts(engine: Engine, waiting: deque[int], left: list[float],
             decoding: int) -> tuple[float, list[int]]:  # fmt: skip
    """Prompt tokens of this iteration, and the requests whose prompt ends in it."""
    room = engine.budget - (0 if engine.prompts_first else decoding)
    room = max(room, 1.0)
    free, tokens = engine.slots - decoding, 0.0
    ended: list[int] = []
    unfinished: list[int] = []
    while waiting and room > 1e-9 and len(ended) + len(unfinished) < free:
        request = waiting.popleft()
        part = min(left[request], room, engine.piece)
        tokens, room = tokens + part, room - part
        left[request] -= part
        (ended if left[request] <= 1e-9 else unfinished).append(request)
    waiting.extendleft(reversed(unfinished))
    return tokens, ended


def _times(requests: Requests, sent: list[float], first: list[float],
           last: list[float], end: float) -> Times:  # fmt: skip
    start, begun, done = np.array(sent), np.array(first), np.array(last)
    between = np.maximum(np.array(requests.output) - 1, 1)
    return Times(begun - start, (done - begun) / between, end)


@dataclass(frozen=True)
class Pools:
    """Prompts on ``workers`` engines, decoding on ``replicas`` others."""

    prompts: Engine
    workers: int
    decoding: Engine
    replicas: int


class _PromptPool:
    """Workers that take prompts as they come; each pass of one ends by itself."""

    def __init__(self, pools: Pools, requests: Requests) -> None:
        self.engine, self.idle = pools.prompts, pools.workers
        self.left = list(requests.prompt)
        self.busy: list[tuple[float, list[int]]] = []

    def take(self, waiting: deque[int], now: float) -> None:
        """Idle workers begin."""
        while self.idle and waiting:
            tokens, ended = _prompts(self.engine, waiting, self.left, 0)
            seconds = self.engine.steps.at(0.0, tokens)
            heapq.heappush(self.busy, (now + seconds, ended))
            self.idle -= 1

    def passed(self) -> float:
        """When the next worker is done."""
        return self.busy[0][0] if self.busy else _ENDLESS

    def pop(self) -> list[int]:
        """The requests that have their first token then."""
        self.idle += 1
        return heapq.heappop(self.busy)[1]


def played_apart(pools: Pools, requests: Requests) -> Times:
    """The run on two pools; the decoding sequences lie evenly on its replicas."""
    source, total = _Source(requests), len(requests)
    prompts = _PromptPool(pools, requests)
    first, last = [0.0] * total, [0.0] * total
    batch: list[tuple[float, int]] = []
    held: deque[int] = deque()
    now, progress, done = 0.0, 0.0, 0
    slots = pools.decoding.slots * pools.replicas
    while done < total:
        source.arrive(now)
        prompts.take(source.waiting, now)
        while held and len(batch) < slots:
            request = held.popleft()
            heapq.heappush(batch, (progress + requests.output[request] - 1, request))
        each = pools.decoding.steps.at(len(batch) / pools.replicas, 0.0)
        complete = now + (batch[0][0] - progress) * each if batch else _ENDLESS
        passed = prompts.passed()
        after = min(complete, passed, source.upcoming())
        ends = batch[0][0] if batch and complete <= after else None
        progress = progress + (after - now) / each if ends is None else ends
        now = after
        if passed <= now:
            for request in prompts.pop():
                first[request] = now
                held.append(request)
        while batch and batch[0][0] <= progress:
            last[heapq.heappop(batch)[1]] = now
            done += 1
            source.complete(now)
    return _times(requests, source.sent, first, last, now)
