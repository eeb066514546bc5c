"""What is loaded: the iteration law of a replica and its room for requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from typing import Literal

from shardwright.cost.tails.lengths import RequestLaw


@dataclass(frozen=True)
class IterationLaw:
    """Seconds of an iteration: alpha + kappa * sequences + beta * prompt tokens."""

    alpha_s: float
    kappa_s: float
    beta_s: float

    def seconds(self, sequences: float, prompt_tokens: float) -> float:
        """Time of one iteration of one stage."""
        return self.alpha_s + self.kappa_s * sequences + self.beta_s * prompt_tokens

    def __add__(self, other: IterationLaw) -> IterationLaw:
        return IterationLaw(
            self.alpha_s + other.alpha_s,
            self.kappa_s + other.kappa_s,
            self.beta_s + other.beta_s,
        )


NOTHING = IterationLaw(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Station:
    """One replica as a queueing station.

    ``law`` is that of the bottleneck stage for ONE micro-batch; ``rest`` the sum of the
    other stages and of the hops (return hop included in its alpha): a micro-batch
    leaves the bottleneck every law(b, p) seconds and passes all stages in law + rest.
    ``slots`` is the number of resident sequences of the replica, over all
    ``micro_batches``; ``chunk_tokens`` the prompt tokens of one iteration beside its
    decodes. ``first_token_extra_s`` is added to every TTFT. ``kv_transfer_s_per_token``
    is the time that a prompt token's KV takes to a decode pool (role prefill).
    """

    law: IterationLaw
    slots: int
    chunk_tokens: int
    role: Literal["mixed", "prefill", "decode"] = "mixed"
    rest: IterationLaw = field(default=NOTHING)
    micro_batches: int = 1
    first_token_extra_s: float = 0.0
    kv_transfer_s_per_token: float = 0.0
    kv_transfer_s: float = 0.0

    def __post_init__(self) -> None:
        if self.micro_batches == 1 and self.rest != NOTHING:
            # a lone micro-batch leaves nothing for the other stages to do meanwhile
            object.__setattr__(self, "law", self.law + self.rest)
            object.__setattr__(self, "rest", NOTHING)

    @cached_property
    def whole(self) -> IterationLaw:
        """All stages and hops."""
        return self.law + self.rest

    def gap_s(self, sequences: float) -> float:
        """Seconds between micro-batches that carry decodes only: max(x, pass/q)."""
        each = sequences / self.micro_batches
        full = self.whole.seconds(each, 0.0)
        return max(self.law.seconds(each, 0.0), full / self.micro_batches)

    def capacity_per_s(self, lengths: RequestLaw) -> float:
        """Requests/s at which the station cannot be stable any more: an upper bound."""
        if self.role == "prefill":
            chunk = self.chunk_tokens
            return chunk / (lengths.prompt.mean * self.law.seconds(0.0, chunk))
        steps = lengths.steps.mean
        prompt = self.law.beta_s * lengths.prompt.mean
        if self.role == "decode":
            return _ratio(
                self.slots, self.micro_batches * self.gap_s(self.slots) * steps
            )
        held = steps + lengths.prompt.chunks(self.chunk_tokens)
        lap = self.micro_batches * self.gap_s(self.slots)
        by_slots = 1.0 / (prompt + held * lap / self.slots)
        return min(by_slots, self.by_chunks_per_s(lengths))

    def prompt_s(self, tokens: float) -> float:
        """A lone prompt through all stages, chunk after chunk."""
        whole, chunk = self.whole, float(self.chunk_tokens)
        full = max(ceil(tokens / chunk - 1e-9) - 1, 0)
        each = self.law.seconds(0.0, chunk)
        if self.micro_batches == 1:
            each = whole.seconds(0.0, chunk)
        return full * each + whole.seconds(0.0, tokens - full * chunk)

    def by_chunks_per_s(self, lengths: RequestLaw) -> float:
        """Rate at which every iteration carries a full chunk."""
        chunk = self.chunk_tokens
        alone = self.law.seconds(0.0, chunk)
        decodes = self.law.kappa_s * lengths.steps.mean
        return 1.0 / (lengths.prompt.mean * alone / chunk + decodes)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else float("inf")
