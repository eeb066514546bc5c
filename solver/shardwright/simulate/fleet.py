"""Replicas side by side: who gets which request, and pools in series."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from shardwright.simulate.machine import Group, Machine
from shardwright.simulate.requests import FloatArray, IntArray, Requests
from shardwright.simulate.ring import Ring
from shardwright.simulate.single import SingleStage
from shardwright.simulate.trace import Log

Routing = Literal["random", "round_robin", "least_loaded"]


@dataclass(frozen=True, eq=False)
class Served:
    """Times of every request, and token intervals of all replicas.

    ``first_s`` and ``done_s`` are absolute, ``prefill_s`` is from the first iteration
    with some of the prompt to the first token; where pools are apart the first token
    counts when its cache has reached the decode replica. Intervals are arrays of
    seconds, tokens that had them, and the time at which they ended.
    """

    requests: Requests
    first_s: FloatArray
    done_s: FloatArray
    prefill_s: FloatArray
    interval_s: FloatArray
    interval_count: FloatArray
    interval_end_s: FloatArray
    preemptions: int
    mean_batch: float


def run_machine(machine: Machine, requests: Requests, prompts: bool = True) -> Log:
    """One replica with its share of the requests, which are in order of arrival."""
    if len(machine.stages) == 1 and machine.micro_batches == 1 and not machine.hops:
        return SingleStage(machine, requests, prompts).run()
    return Ring(machine, requests, prompts).run()


def serve(
    groups: Sequence[Group],
    requests: Requests,
    routing: Routing,
    rng: np.random.Generator,
    weights: Sequence[FloatArray] | None = None,
) -> Served:
    """Mixed replicas, or a prefill group and then a decode group.

    ``weights`` give each group's replicas their shares; default: equal.
    """
    mixed = [g for g in groups if g.role == "mixed"]
    if mixed:
        return _serve_mixed(groups, requests, routing, rng, weights)
    prefill, decode = sorted(groups, key=lambda g: g.role == "decode")
    at = groups.index(prefill)
    shares = [None, None] if weights is None else [weights[at], weights[1 - at]]
    single = Requests(
        requests.arrival_s,
        requests.prompt,
        requests.context,
        np.ones_like(requests.output),
    )
    before = _serve_group(prefill, single, routing, rng, shares[0])
    handed = before.first_s + prefill.transfer_s
    handed = handed + prefill.transfer_s_per_token * requests.context
    order = np.argsort(handed, kind="stable")
    later = requests.take(order)
    later = Requests(handed[order], later.prompt, later.context, later.output)
    after = _serve_group(decode, later, routing, rng, shares[1])
    back = np.argsort(order, kind="stable")
    done = np.where(requests.output > 1, after.done_s[back], handed)
    return _served(requests, handed, done, before.prefill_s, after.logs)


def _serve_mixed(
    groups: Sequence[Group],
    requests: Requests,
    routing: Routing,
    rng: np.random.Generator,
    weights: Sequence[FloatArray] | None,
) -> Served:
    machines = tuple(m for group in groups for m in group.machines)
    share = None if weights is None else np.concatenate(list(weights))
    one = Group(machines, "mixed")
    all_of = _serve_group(one, requests, routing, rng, share)
    times = (all_of.first_s, all_of.done_s, all_of.prefill_s)
    return _served(requests, *times, all_of.logs)


@dataclass(frozen=True, eq=False)
class _Times:
    """Of every request of a group, with the logs of its replicas."""

    first_s: FloatArray
    done_s: FloatArray
    prefill_s: FloatArray
    logs: list[Log]


def _serve_group(
    group: Group,
    requests: Requests,
    routing: Routing,
    rng: np.random.Generator,
    weights: FloatArray | None,
) -> _Times:
    first, done, prefill = (np.full(len(requests), np.nan) for _ in range(3))
    home = route(group, requests, routing, rng, weights)
    logs = []
    for i, machine in enumerate(group.machines):
        mine = np.flatnonzero(home == i)
        log = run_machine(machine, requests.take(mine), group.role != "decode")
        first[mine], done[mine] = log.first_s, log.done_s
        prefill[mine] = log.first_s - log.scheduled_s
        logs.append(log)
    return _Times(first, done, prefill, logs)


def route(
    group: Group,
    requests: Requests,
    routing: Routing,
    rng: np.random.Generator,
    weights: FloatArray | None = None,
) -> IntArray:
    """Replica of every request.

    ``least_loaded`` sends each to the replica with the least work that it was sent and
    that is not yet due (the time that the laws give it alone, no feedback).
    """
    count = len(group.machines)
    share = np.full(count, 1.0 / count) if weights is None else weights / weights.sum()
    if count == 1:
        return np.zeros(len(requests), dtype=np.int64)
    if routing == "random":
        return rng.choice(count, len(requests), p=share).astype(np.int64)
    if routing == "round_robin":
        return _round_robin(share, len(requests))
    return _least_loaded(share, requests)


def _round_robin(share: FloatArray, count: int) -> IntArray:
    """Weighted: each request goes where the due time is earliest."""
    due = [(0.5 / s, i) for i, s in enumerate(share)]
    heapq.heapify(due)
    home = np.empty(count, dtype=np.int64)
    for n in range(count):
        at, i = due[0]
        home[n] = i
        heapq.heapreplace(due, (at + 1.0 / share[i], i))
    return home


def _least_loaded(share: FloatArray, requests: Requests) -> IntArray:
    """Work in tokens drains at each replica in proportion to its share."""
    work = requests.prompt + 8.0 * requests.output
    span = max(float(requests.arrival_s[-1] - requests.arrival_s[0]), 1e-9)
    drain = share * float(work.sum()) / span
    backlog, last = np.zeros(len(share)), 0.0
    home = np.empty(len(requests), dtype=np.int64)
    for n, (now, mine) in enumerate(zip(requests.arrival_s, work, strict=True)):
        backlog = np.maximum(backlog - drain * (now - last), 0.0)
        last = float(now)
        i = int(np.argmin(backlog / share))
        backlog[i] += mine
        home[n] = i
    return home


def _served(
    requests: Requests,
    first: FloatArray,
    done: FloatArray,
    prefill: FloatArray,
    logs: list[Log],
) -> Served:
    seconds = np.concatenate([np.array(log.interval_s, float) for log in logs])
    counts = np.concatenate([np.array(log.interval_count, float) for log in logs])
    ends = np.concatenate([np.array(log.interval_end_s, float) for log in logs])
    span = float(np.nanmax(done) - requests.arrival_s[0]) if len(requests) else 0.0
    busy = sum(log.busy_sequences_s for log in logs)
    return Served(
        requests,
        first,
        done,
        prefill,
        seconds,
        counts,
        ends,
        sum(log.preemptions for log in logs),
        busy / span / max(len(logs), 1) if span > 0 else 0.0,
    )
