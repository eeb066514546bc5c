"""Published runs played request by request (docs/cost-model.md section 13).

What the protocol of a run is, as far as its row says it, and the iteration times of
its deployment on a small grid; ``client_runs`` plays it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shardwright.cost import serving
from shardwright.planning import run_names
from shardwright.planning.client_runs import (
    Engine,
    Pools,
    Requests,
    Steps,
    Times,
    played,
    played_apart,
)
from shardwright.planning.runs import Row

FloatArray = NDArray[np.float64]

REQUESTS_PER_CLIENT = 10
"""Of a closed loop whose number of requests is not published (InferenceX's client)."""
POISSON_REQUESTS = 2000
MOST_REQUESTS = 20_000
MOST_PASSES = 100_000
"""Of prompts in one run; longer ones keep the closed form."""
PROMPT_BUDGET = {"vllm": 2048.0}
"""Tokens of an iteration by engine; others 8,192.

vLLM's scheduler has 2,048 unless its server finds a large GPU and raises it; the
published runs on H100 speak for 2,048.
"""
PROMPTS_FIRST = ("sglang",)
"""Engines that let decoding wait while prompts are there."""
_DATASET_CV = 1.0
_SEQUENCES = np.array([0.0, 1 / 32, 1 / 8, 1 / 4, 1 / 2, 1.0])
_TOKENS = np.array([0.0, 1 / 64, 1 / 16, 1 / 4, 1.0])


@dataclass(frozen=True)
class Played:
    """What the client reports, ms and output tokens/s; medians where asked for."""

    ttft_ms: float
    tpot_ms: float
    output_tokens_per_s: float


@dataclass(frozen=True)
class Grid:
    """Iteration times of deployments: axes (D, 6) and (D, 5), seconds (D, 6, 5)."""

    sequences: FloatArray
    tokens: FloatArray
    seconds: FloatArray

    @classmethod
    def of(cls, runs: serving.Runs, most: FloatArray, prompts: bool = True) -> Grid:
        """Up to ``most`` sequences of a replica and a whole budget of prompts."""
        sequences = _SEQUENCES[None, :] * np.maximum(most, 1.0)[:, None]
        tokens = _TOKENS[None, :] * (runs.chunk * runs.ranks)[:, None]
        tokens = tokens if prompts else tokens[:, :2]
        seconds = [
            [_iteration_s(runs, m, x) for x in tokens.T] for m in sequences.T
        ]  # fmt: skip
        return cls(sequences, tokens, np.moveaxis(np.array(seconds), 2, 0))

    def steps(self, i: int) -> Steps:
        """Those of one deployment."""
        return Steps(self.sequences[i].tolist(), self.tokens[i].tolist(),
                     self.seconds[i].tolist())  # fmt: skip


def _iteration_s(runs: serving.Runs, sequences: FloatArray,
                 tokens: FloatArray) -> FloatArray:  # fmt: skip
    """All micro-batches of a replica once round; one of them carries the prompts."""
    q = np.minimum(runs.stages, np.maximum(np.floor(sequences), 1))
    piece = np.minimum(runs.input_tokens, runs.chunk)
    ranks = np.clip(tokens / piece, 1, runs.ranks)
    loop, period = runs.step(sequences / q, tokens, ranks)
    _, other = runs.step(sequences / q, np.zeros_like(tokens), np.ones_like(tokens))
    found: FloatArray = np.maximum(loop, period + (q - 1) * other)
    return found


def random_lengths(row: Row) -> bool:
    """Whether the client drew lengths from 80 to 100% of the nominal ones.

    InferenceX's client does, in its own publications and in the samples taken from
    them; the publisher of those samples names its own runs by the model twice.
    """
    if row.source.lower().startswith("inferencex"):
        return True
    sample = row.sample or ""
    own = re.match(r"(.+?)_\1_", sample) and "gap_analysis" not in sample
    return bool(sample) and not own


def _lengths(mean: float, row: Row, count: int,
             chance: np.random.Generator) -> FloatArray:  # fmt: skip
    """Lengths of the requests in a random order; their mean is the nominal one.

    Round nominal lengths (of 16 or 100) are constants, others means of a data set.
    """
    if random_lengths(row):
        return mean * (0.8 + 0.2 * chance.permutation(_even(count)))
    if mean % 100 == 0 or mean % 16 == 0:
        return np.full(count, mean)
    # quantiles of an exponential law, whose cv is 1
    drawn = -np.log(1 - chance.permutation(_even(count)))
    found: FloatArray = drawn * (mean / drawn.mean())
    return found


def _even(count: int) -> FloatArray:
    found: FloatArray = (np.arange(count) + 0.5) / count
    return found


def requests_of(row: Row, replicas: float) -> Requests | None:
    """The requests that one replica sees; None: not played, or too many to play."""
    if not is_played(row):
        return None
    chance = np.random.default_rng(0)
    clients, count = None, float(POISSON_REQUESTS)
    if row.mode == "closed_loop":
        clients = max(round((row.concurrency or 1.0) / replicas), 1)
        count = float(clients * REQUESTS_PER_CLIENT)
    if row.requests is not None:
        count = max(round(row.requests / replicas), 1)
    count = min(count, max(MOST_REQUESTS, 2 * (clients or 0)))
    passes = count * (1 + row.input_tokens / serving_budget(run_names.engine(row)))
    if max(clients or 0, count) > 2 * MOST_REQUESTS or passes > MOST_PASSES:
        return None
    n = int(count)
    prompt = np.maximum(_lengths(row.input_tokens, row, n, chance), 1.0)
    output = np.maximum(np.rint(_lengths(row.output_tokens, row, n, chance)), 1.0)
    arrival = np.zeros(n)
    if row.mode == "poisson" and row.rate_per_s:
        between = -np.log(1 - chance.permutation(_even(n)))
        arrival = np.cumsum(between) * replicas / row.rate_per_s
    whole = [int(x) for x in output]
    return Requests(prompt.tolist(), whole, arrival.tolist(), clients)


def serving_budget(engine: str) -> float:
    """Tokens of an iteration at most."""
    return PROMPT_BUDGET.get(engine.split("-")[0], 8192.0)


def with_budgets(runs: serving.Runs) -> serving.Runs:
    """The runs under their engines' default budgets."""
    names = [d.engine for d in runs.stack.deployments]
    return replace(runs, chunk=np.array([serving_budget(n) for n in names]))


def _engine(runs: serving.Runs, i: int, steps: Steps, slots: float) -> Engine:
    first = runs.stack.deployments[i].engine in PROMPTS_FIRST
    chunk, ranks = float(runs.chunk[i]), float(runs.ranks[i])
    return Engine(steps, max(int(slots), 1), chunk * ranks, chunk, first)


def is_played(row: Row) -> bool:
    """Runs whose TTFT depends on how they went: not static, not of unknown length."""
    if row.mode == "offline_max":
        return row.requests is not None and row.prefill is None
    return row.mode in ("closed_loop", "poisson")


def play(rows: Sequence[Row], runs: serving.Runs,
         prefill: serving.Runs | None = None) -> list[Played | None]:  # fmt: skip
    """What the clients of rows on their deployments report; None: not played.

    ``prefill``: the prompt pools of the same rows.
    """
    runs = with_budgets(runs)
    clients = np.array([r.concurrency or 1.0 for r in rows])
    looped = np.array([r.mode == "closed_loop" for r in rows])
    most = np.where(looped, np.minimum(clients / runs.replicas, runs.cap), runs.cap)
    if prefill is None:
        grid = Grid.of(runs, most)
        return [_mixed(row, runs, i, grid) for i, row in enumerate(rows)]
    first = with_budgets(prefill)
    grids = Grid.of(first, np.ones(len(rows))), Grid.of(runs, most, prompts=False)
    return [_apart(row, first, runs, i, grids) for i, row in enumerate(rows)]


def _mixed(row: Row, runs: serving.Runs, i: int, grid: Grid) -> Played | None:
    replicas = float(runs.replicas[i])
    requests = requests_of(row, replicas)
    if requests is None:
        return None
    times = played(_engine(runs, i, grid.steps(i), float(runs.cap[i])), requests)
    if row.mode == "poisson" and row.requests is None and _overrun(times, requests):
        return None
    once = float(runs.request_s[i])
    return _reported(row, times, requests, replicas, once, float(runs.cold_start_s[i]))


def _overrun(times: Times, requests: Requests) -> bool:
    """More arrives than is served: how long the queue gets is a matter of the end."""
    half = len(requests) // 2
    early, late = times.first_s[:half].mean(), times.first_s[half:].mean()
    return bool(late > 3 * early)


def _apart(row: Row, first: serving.Runs, runs: serving.Runs, i: int,
           grids: tuple[Grid, Grid]) -> Played | None:  # fmt: skip
    requests = requests_of(row, 1.0)
    if requests is None:
        return None
    pools = Pools(
        _engine(first, i, grids[0].steps(i), 1e9), max(int(first.replicas[i]), 1),
        _engine(runs, i, grids[1].steps(i), float(runs.cap[i])),
        max(int(runs.replicas[i]), 1),
    )  # fmt: skip
    times = played_apart(pools, requests)
    once = float(first.request_s[i] + runs.request_s[i])
    return _reported(row, times, requests, 1.0, once, float(first.cold_start_s[i]))


def _reported(row: Row, times: Times, requests: Requests, replicas: float,
              once_s: float, cold_s: float) -> Played:  # fmt: skip
    """The client's figures; its first requests wait for kernels besides."""
    share = (requests.clients or 0) / len(requests)
    middle = np.median if row.ttft_is_median else np.mean
    first = float(middle(times.first_s)) + once_s
    if not row.ttft_is_median:
        first += min(share, 1.0) * cold_s
    rate = sum(requests.output) * replicas / times.run_s
    return Played(first * 1e3, float(middle(times.token_s)) * 1e3, rate)
