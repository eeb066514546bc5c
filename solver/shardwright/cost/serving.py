"""What a benchmark client measures, by mode (docs/cost-model.md section 13).

Vectorised over runs: every argument and result is an array over the deployments of a
``Stack``. Times in seconds, rates in tokens per second, lengths in tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shardwright.cost.stacked import Stack
from shardwright.ingest import catalogue

FloatArray = NDArray[np.float64]

_ROUNDS = 12


class Measures(NamedTuple):
    """Means over requests: seconds, seconds, output tokens/s of all replicas."""

    ttft_s: FloatArray
    tpot_s: FloatArray
    output_tokens_per_s: FloatArray


@dataclass(frozen=True)
class Client:
    """How a benchmark's client and harness behave; shares of one.

    ``start_share``: part of the requests that arrive in the burst at the start.
    ``convoy_share``: part of the other prompts that are admitted with one's own.
    """

    start_share: float = 0.1
    convoy_share: float = 0.1

    @classmethod
    def usual(cls) -> Client:
        """The client of the catalogue (models/calibration/serving.yaml)."""
        known = catalogue.shared("serving")
        return cls(*(float(known.get(f.name, f.default)) for f in fields(cls)))


@dataclass(frozen=True)
class Runs:
    """Runs on the deployments of a stack, one each.

    ``cap`` is the most sequences of one replica (memory and engine), ``replicas`` the
    number of equal ones, ``chunk`` the prompt tokens of an iteration at most.
    """

    stack: Stack
    input_tokens: FloatArray
    output_tokens: FloatArray
    replicas: FloatArray
    cap: FloatArray
    chunk: FloatArray
    client: Client = field(default_factory=Client.usual)

    @cached_property
    def stages(self) -> FloatArray:
        """Pipeline stages."""
        return np.array([d.stages for d in self.stack.deployments], float)

    @cached_property
    def ranks(self) -> FloatArray:
        """Attention ranks that take prompts side by side."""
        return np.array([d.shape.attn_dp for d in self.stack.deployments], float)

    @property
    def request_s(self) -> FloatArray:
        """What a request pays once."""
        return self.stack.rates.columns["request"][:, 0]

    @property
    def admission(self) -> FloatArray:
        """Iterations that a request waits until the scheduler takes it up."""
        return self.stack.rates.columns["admission"][:, 0]

    @property
    def cold_start_s(self) -> FloatArray:
        """What the first requests wait for kernels compiled on first use."""
        return self.stack.rates.columns["cold_start"][:, 0]

    def context(self) -> FloatArray:
        """Resident tokens of a decoding sequence, mean."""
        return self.input_tokens + self.output_tokens / 2

    def step(
        self, sequences: FloatArray, prompts: FloatArray, prompt_ranks: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Loop and period of a micro-batch iteration: (S, T), hops in S."""
        totals = self.stack.iteration(
            sequences,
            prompts,
            self.context(),
            self.input_tokens / 2,
            self.input_tokens,
            prompt_ranks,
        )
        return totals.all_stages, totals.slowest_stage

    def token_s(
        self, sequences: FloatArray, loaded: bool = True, whole: bool = False
    ) -> FloatArray:
        """Period of a token with so many sequences resident in a replica.

        Prompt work of the balance is carried by some of the iterations, a whole
        prompt (or chunk) each; in the others only decoding sequences run. ``whole``:
        the batch is one micro-batch, and the stages wait for one another.
        """
        most = np.ones_like(sequences) if whole else self.stages
        q = np.minimum(most, np.maximum(np.floor(sequences), 1))
        m = np.maximum(sequences, 1e-9) / q
        one = np.ones_like(m)
        loop, period = self.step(m, np.zeros_like(m), one)
        if loaded:
            balanced = m * self.input_tokens / self.output_tokens
            chunk = np.minimum(self.input_tokens, self.chunk)
            together = np.clip(m, 1, self.ranks)
            carried = np.maximum(together * chunk, balanced)
            ranks = np.clip(carried / chunk, 1, self.ranks)
            share = balanced / carried
            with_loop, with_period = self.step(m, carried, ranks)
            loop = loop + share * (with_loop - loop)
            period = period + share * (with_period - period)
        return np.maximum(q * period, loop)

    def prompt_s(self, prompts: FloatArray, beside: FloatArray) -> FloatArray:
        """Time until ``prompts`` prompts together have their first token.

        They are cut into chunks; ``beside`` sequences of a replica decode along.
        """
        ranks = np.clip(prompts, 1, self.ranks)
        tokens = prompts * self.input_tokens
        count = np.maximum(np.ceil(tokens / ranks / self.chunk - 1e-9), 1)
        m = beside / np.minimum(self.stages, np.maximum(beside, 1))
        loop, period = self.step(m, tokens / count, ranks)
        return loop + (count - 1) * period


def static_batch(runs: Runs, batch: FloatArray) -> Measures:
    """One batch enters together and leaves together; TTFT is its whole prefill.

    Batches beyond the room of the replicas run one after another.
    """
    mine = batch / runs.replicas
    waves = np.maximum(mine / runs.cap, 1.0)
    resident = np.minimum(mine, runs.cap)
    ttft = runs.prompt_s(resident, np.zeros_like(mine)) + runs.request_s
    tpot = runs.token_s(resident, loaded=False, whole=True)
    total = waves * (ttft + np.maximum(runs.output_tokens - 1, 0) * tpot)
    return Measures(ttft, tpot, batch * runs.output_tokens / total)


def single_stream(runs: Runs) -> Measures:
    """One request at a time on one replica."""
    one = np.ones_like(runs.input_tokens)
    return static_batch(runs, one)._replace()


def offline_max(runs: Runs) -> Measures:
    """All requests are queued at the start: every replica is as full as it can be."""
    tpot = runs.token_s(runs.cap)
    rate = runs.replicas * runs.cap / tpot
    return Measures(runs.prompt_s(np.ones_like(tpot), runs.cap), tpot, rate)


def closed_loop(runs: Runs, concurrency: FloatArray, median: FloatArray) -> Measures:
    """So many clients, each sends its next request when the last is complete.

    ``median``: where the TTFT asked for is the median (the start's burst is not in
    it), elsewhere the mean.
    """
    mine = np.maximum(concurrency / runs.replicas, 1e-9)
    resident = np.minimum(mine, runs.cap)
    alone = runs.prompt_s(np.ones_like(mine), np.zeros_like(mine))
    tpot = runs.token_s(resident)
    ttft = alone
    decoded = np.maximum(runs.output_tokens - 1, 0)
    for _ in range(_ROUNDS):
        life = ttft + decoded * tpot
        decoding = resident * decoded * tpot / np.maximum(life, 1e-12)
        tpot = 0.5 * tpot + 0.5 * runs.token_s(
            np.maximum(decoding, np.minimum(resident, 1.0))
        )
        ttft = 0.5 * ttft + 0.5 * _first_token(runs, resident, decoding, tpot, life)
    waiting = np.maximum(mine / runs.cap - 1, 0) * decoded * tpot
    burst = _burst(runs, mine) + runs.cold_start_s
    mean = (1 - runs.client.start_share) * ttft + runs.client.start_share * burst
    ttft_asked = np.where(median, ttft, mean) + waiting + runs.request_s
    rate = concurrency * runs.output_tokens / (ttft_asked + decoded * tpot)
    return Measures(ttft_asked, tpot, rate)


def _first_token(runs: Runs, resident: FloatArray, decoding: FloatArray,
                 tpot: FloatArray, life: FloatArray) -> FloatArray:  # fmt: skip
    """Wait for the running iteration, other prompts before, and one's own chunks."""
    others = runs.client.convoy_share * np.maximum(
        np.minimum(runs.chunk / runs.input_tokens * runs.ranks, resident) - 1, 0
    )
    own = runs.prompt_s(1 + others, decoding)
    alone = runs.prompt_s(np.ones_like(own), decoding)
    busy = np.minimum((resident - 1).clip(0) * alone / life / runs.ranks, 0.95)
    queue = busy / (2 * (1 - busy)) * alone
    running = (1 - busy) * tpot + busy * alone
    wait: FloatArray = runs.admission * running * (resident > 1) + queue
    return wait + own


def _burst(runs: Runs, mine: FloatArray) -> FloatArray:
    """Mean time to the first token when all clients start at once."""
    together = np.minimum(mine, runs.cap)
    return 0.5 * runs.prompt_s(together, np.zeros_like(mine)) + 0.5 * runs.prompt_s(
        np.ones_like(mine), np.zeros_like(mine)
    )


def poisson(runs: Runs, rate_per_s: FloatArray) -> Measures:
    """Requests arrive at random at a mean rate; beyond capacity the room is full."""
    mine = rate_per_s / runs.replicas
    full = runs.token_s(runs.cap)
    most = runs.cap / (full * runs.output_tokens)
    served = np.minimum(mine, 0.98 * most)
    tpot = runs.token_s(np.ones_like(mine))
    for _ in range(2 * _ROUNDS):
        resident = np.clip(served * runs.output_tokens * tpot, 0.05, runs.cap)
        tpot = 0.5 * tpot + 0.5 * runs.token_s(resident)
    resident = np.clip(served * runs.output_tokens * tpot, 0.05, runs.cap)
    alone = runs.prompt_s(np.ones_like(mine), resident)
    busy = np.minimum(served * alone / runs.ranks, 0.95)
    wait = runs.admission * ((1 - busy) * tpot + busy * alone)
    wait = wait + busy / (2 * (1 - busy)) * alone
    load = np.minimum(mine / most, 0.85)
    backlog = load**20 / (1 - load) * full
    ttft = wait + alone + backlog + runs.request_s
    output = np.minimum(mine, most) * runs.replicas * runs.output_tokens
    return Measures(ttft, tpot, output)


def disaggregated(
    prefill: Runs, decode: Runs, concurrency: FloatArray, median: FloatArray
) -> Measures:
    """Prompts on one pool, decoding on another; the cache crosses the network."""
    c = concurrency
    resident = np.minimum(c / decode.replicas, decode.cap)
    tpot = decode.token_s(resident, loaded=False)
    alone = prefill.prompt_s(np.ones_like(c), np.zeros_like(c))
    # a rank's share of a pass in which every rank has a prompt
    full = prefill.prompt_s(prefill.ranks, np.zeros_like(c))
    decoded = np.maximum(decode.output_tokens - 1, 0)
    servers = prefill.replicas * prefill.ranks
    ttft = alone
    for _ in range(_ROUNDS):
        life = ttft + decoded * tpot
        busy = np.minimum(c / life * full / servers, 0.98)
        wait = busy ** np.sqrt(2 * (servers + 1)) / (2 * servers * (1 - busy)) * full
        # no more than the prompts of all other clients can be before one's own
        wait = np.minimum(wait, c / servers * full)
        service = alone + busy * (full - alone)
        # no more prompts leave the pool than it can compute
        least = c * full / servers - decoded * tpot
        ttft = 0.5 * ttft + 0.5 * np.maximum(service + wait, least)
        inside = resident * decoded * tpot / np.maximum(life, 1e-12)
        tpot = 0.5 * tpot + 0.5 * decode.token_s(np.maximum(inside, 1e-3), loaded=False)
    share = np.where(median, 0.0, prefill.client.start_share)
    burst = full * (1 + c / servers) / 2 + prefill.cold_start_s
    ttft = (1 - share) * ttft + share * np.maximum(burst, ttft)
    ttft = ttft + prefill.request_s + decode.request_s
    rate = c * decode.output_tokens / (ttft + decoded * tpot)
    return Measures(ttft, tpot, rate)
