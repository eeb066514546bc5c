"""What comes: arrivals and lengths of a study, and the same for the closed forms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shardwright.cost.tails import LengthLaw, RequestLaw
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.workload import Workload
from shardwright.simulate.requests import (
    FloatArray,
    IntArray,
    Requests,
    arrivals,
    draw_lengths,
    read_trace,
    with_lengths,
)

_QUANTILES = 400


@dataclass(frozen=True)
class Scenario:
    """Requests of a workload at a rate.

    ``kind``: renewal arrivals with the squared cv ``ca2``, all at once (``burst``), or
    a ``trace`` (its lengths too, its times stretched to the rate).
    """

    workload: Workload
    rate_per_s: float
    kind: str = "poisson"
    ca2: float = 1.0
    trace: tuple[FloatArray, IntArray, IntArray] | None = None

    def draw(self, count: int, rng: np.random.Generator) -> Requests:
        """``count`` requests; a trace is repeated or cut to that."""
        hit = self.workload.prefix_cache_hit_ratio
        if self.trace is not None:
            return with_lengths(*self._repeated(count, rng), hit)
        most = self.workload.max_context_tokens
        inputs = draw_lengths(self.workload.input_tokens, count, rng, most - 1)
        outputs = draw_lengths(self.workload.output_tokens, count, rng, most)
        outputs = np.minimum(outputs, most - inputs)
        if self.kind == "burst":
            times = np.zeros(count)
        else:
            times = arrivals(self.rate_per_s, count, rng, self.ca2)
        return with_lengths(times, inputs, outputs, hit)

    def _repeated(
        self, count: int, rng: np.random.Generator
    ) -> tuple[FloatArray, IntArray, IntArray]:
        """The trace from a random request on, around its end if need be."""
        assert self.trace is not None
        times, inputs, outputs = self.trace
        size = len(times)
        span = float(times[-1]) * size / max(size - 1, 1)
        index = int(rng.integers(size)) + np.arange(count)
        laps, at = index // size, index % size
        stretched = times[at] + laps * span
        scale = size / max(span, 1e-9) / self.rate_per_s
        most = self.workload.max_context_tokens
        kept = np.minimum(inputs[at], most - 1)
        return (
            (stretched - stretched[0]) * scale,
            kept,
            np.minimum(outputs[at], most - kept),
        )

    @property
    def predictable(self) -> bool:
        """Whether the closed forms know of such arrivals."""
        return self.kind != "burst"

    def lengths(self) -> RequestLaw:
        """Lengths as the closed forms take them."""
        if self.trace is None:
            return RequestLaw.of(self.workload)
        _, inputs, outputs = self.trace
        work: FloatArray = inputs.astype(np.float64) * (
            1 - self.workload.prefix_cache_hit_ratio
        )
        return RequestLaw(_histogram(work), _histogram(outputs))


def _histogram(tokens: FloatArray | IntArray) -> LengthLaw:
    """Means of equally many lengths each."""
    parts = np.array_split(np.sort(tokens.astype(np.float64)), _QUANTILES)
    filled = [part for part in parts if len(part)]
    return LengthLaw.histogram([(float(part.mean()), len(part)) for part in filled])


def scenario(
    workload: Workload,
    rate_per_s: float | None,
    arrivals_text: str | None,
    default: float,
) -> Scenario:
    """From what a user writes: poisson, gamma:CA2, burst, or the path of a trace.

    None: as the workload says.

    Without a rate, a trace keeps its own, and all else comes at ``default``.
    """
    rate = rate_per_s if rate_per_s is not None else default
    if arrivals_text is None:
        law = workload.arrivals
        return Scenario(workload, rate, law.law, law.ca2)
    if arrivals_text == "poisson":
        return Scenario(workload, rate)
    if arrivals_text == "burst":
        return Scenario(workload, rate, "burst")
    if arrivals_text.startswith("gamma:"):
        return Scenario(workload, rate, "gamma", _ca2(arrivals_text))
    path = Path(arrivals_text)
    if not path.suffix and not path.exists():
        raise _refused("--arrivals", arrivals_text)
    times, inputs, outputs = read_trace(path)
    if rate_per_s is None:
        rate = (len(times) - 1) / float(times[-1]) if times[-1] > 0 else default
    between = np.diff(times)
    ca2 = float(between.var() / between.mean() ** 2) if times[-1] > 0 else 1.0
    return Scenario(workload, rate, "trace", ca2, (times, inputs, outputs))


def _ca2(text: str) -> float:
    try:
        value = float(text.removeprefix("gamma:"))
    except ValueError:
        value = float("nan")
    if not 0 < value <= 1000:
        raise _refused("--arrivals", text)
    return value


def _refused(path: str, found: str) -> InvalidInstance:
    allowed = "poisson, gamma:CA2 (0 < CA2 <= 1000), burst, or the path of a CSV trace"
    return InvalidInstance("command line", [FieldError(path, repr(found), allowed)])
