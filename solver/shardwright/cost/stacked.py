"""Iteration times of many deployments at once (docs/cost-model.md sections 4, 8, 10).

The same formulas as the clock of one stage (``terms``), on arrays over deployments;
times are seconds and are not rounded. Layers are spread evenly over the stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shardwright.cost import terms
from shardwright.cost.lengths import ceil_div
from shardwright.cost.memory import padded_vocabulary
from shardwright.cost.rank import RankLayer, value_bytes
from shardwright.cost.rates import FORMATS, Rates
from shardwright.cost.shape import StageShape
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.model import ModelSpec
from shardwright.schema.workload import Precision

FloatArray = NDArray[np.float64]

_COLLECTIVES = ("tp", "dp", "near", "moe_tp")
_NO_WINDOW = 1e12


@dataclass(frozen=True)
class Deployment:
    """One replica as it is run: ``stages`` equal stages of one shape."""

    spec: ModelSpec
    precision: Precision
    gpu: GpuSpec
    shape: StageShape
    engine: str = "generic"
    stages: int = 1

    def compute_format(self, dtype: str) -> str:
        """The format that matrices stored in ``dtype`` are multiplied in."""
        native = dtype in self.gpu.dense_tflops
        return dtype if native else self.precision.activations


class Totals(NamedTuple):
    """Seconds of one iteration over a whole replica, per deployment."""

    all_stages: FloatArray
    slowest_stage: FloatArray
    hops: FloatArray


class _Layer(NamedTuple):
    """Figures of one layer kind of one deployment; counts, bytes, tokens."""

    layers: float
    parameters: list[float]
    read: float
    packed_read: float
    attention: float
    kv_bytes: float
    decode_flops: float
    prefill_flops: float
    window: float
    has_ffn: float
    experts: float
    top_k: float
    slots: float
    expert_parameters: float
    expert_read: float
    expert_format: float
    expert_packed: float
    balance: float
    copies_across: float


def _layer(d: Deployment, rank: RankLayer, count: int) -> _Layer:
    parameters, read, packed = [0.0] * len(FORMATS), 0.0, 0.0
    for size, dtype in rank.matrices:
        numerator, denominator = value_bytes(dtype)
        compute = d.compute_format(dtype)
        parameters[FORMATS.index(compute)] += size
        read += size * numerator / denominator
        packed += size * numerator / denominator if compute != dtype else 0.0
    attention, experts = rank.attention, rank.experts
    expert_bytes = 0.0
    if experts is not None:
        numerator, denominator = value_bytes(experts.dtype)
        expert_bytes = experts.parameters * numerator / denominator
    return _Layer(
        layers=count,
        parameters=parameters,
        read=read,
        packed_read=packed,
        attention=float(attention is not None),
        kv_bytes=rank.kv_bytes_per_token(d.precision),
        decode_flops=attention.decode_flops if attention else 0.0,
        prefill_flops=attention.prefill_flops if attention else 0.0,
        window=(attention.window_tokens if attention else None) or _NO_WINDOW,
        has_ffn=float(rank.has_ffn),
        experts=experts.experts if experts else 1.0,
        top_k=experts.top_k if experts else 0.0,
        slots=experts.slots if experts else 0.0,
        expert_parameters=experts.parameters if experts else 0.0,
        expert_read=expert_bytes,
        expert_format=FORMATS.index(d.compute_format(experts.dtype)) if experts else 0,
        expert_packed=float(
            experts is not None and d.compute_format(experts.dtype) != experts.dtype
        ),
        balance=experts.balance if experts else 1.0,
        copies_across=_copies_across(d.shape, rank),
    )


def _copies_across(shape: StageShape, rank: RankLayer) -> float:
    if rank.experts is None or shape.islands == 1:
        return 0.0
    z = shape.islands
    met = z * (1 - (1 - 1 / z) ** rank.experts.top_k)
    return min(rank.experts.reachable_islands, met) * (1 - 1 / z)


@dataclass(frozen=True)
class Stack:
    """Many deployments: figures as arrays (D, K) over deployments and layer kinds."""

    deployments: tuple[Deployment, ...]
    rates: Rates

    @classmethod
    def of(cls, deployments: Sequence[Deployment]) -> Stack:
        """The stack with the constants of the deployments' own GPU types.

        ValueError for context groups and copies of experts: no run has them.
        """
        if any(d.shape.cp > 1 or d.shape.moe_dp > 1 for d in deployments):
            raise ValueError("stacked deployments have cp 1 and moe_dp 1")
        rates = Rates.of([(d.gpu, d.engine) for d in deployments])
        return cls(tuple(deployments), rates)

    def with_rates(self, rates: Rates) -> Stack:
        """The same deployments under other constants; figures are kept."""
        other = replace(self, rates=rates)
        for name in ("_figures", "_shape"):
            other.__dict__[name] = getattr(self, name)
        return other

    @cached_property
    def _figures(self) -> dict[str, FloatArray]:
        layers = []
        for d in self.deployments:
            kinds = d.spec.kind_indices()
            ranks = [
                RankLayer.of(d.spec, kind, d.shape, d.precision)
                for kind in d.spec.layer_kinds
            ]
            layers.append([_layer(d, r, kinds.count(g)) for g, r in enumerate(ranks)])
        width = max(map(len, layers))
        empty = _Layer(0, [0.0] * len(FORMATS), *[0.0] * (len(_Layer._fields) - 2))
        empty = empty._replace(experts=1.0, window=_NO_WINDOW)
        padded = [row + [empty] * (width - len(row)) for row in layers]
        return {
            name: np.array([[getattr(x, name) for x in row] for row in padded], float)
            for name in _Layer._fields
        }

    @cached_property
    def _shape(self) -> dict[str, FloatArray]:
        rows = []
        for d in self.deployments:
            s, a = d.shape, value_bytes(d.precision.activations)[0]
            vocabulary = padded_vocabulary(d.spec.vocabulary)
            rows.append(
                {
                    "tp": s.tp, "dp": s.attn_dp, "moe_tp": s.moe_tp, "ep": s.ep,
                    "gpus": s.gpus, "islands": s.islands,
                    "near": min(s.ep, s.gpus_per_island),
                    "hidden": d.spec.hidden * a, "stages": d.stages,
                    "head": d.spec.hidden * ceil_div(vocabulary, s.tp),
                    "logit": vocabulary * a, "value": a,
                    "format": FORMATS.index(d.precision.activations),
                }
            )  # fmt: skip
        return {k: np.array([[row[k]] for row in rows], float) for k in rows[0]}

    def iteration(
        self,
        sequences: FloatArray,
        prompts: FloatArray,
        context: FloatArray,
        attended: FloatArray,
        prompt_length: FloatArray,
        prompt_ranks: FloatArray,
    ) -> Totals:
        """Time of one iteration of a micro-batch over all stages; arrays (D,).

        ``prompts`` tokens lie on ``prompt_ranks`` attention ranks.
        """
        s = self._shape
        total_m = np.maximum(sequences, 0)[:, None]
        m = np.maximum(total_m / s["dp"], np.minimum(total_m, 1))
        total_x = np.maximum(prompts, 0)[:, None]
        x = total_x / prompt_ranks[:, None]
        tokens = total_m + total_x
        layers = self._layers(m, x, tokens, context[:, None], attended[:, None])
        first, last = self._ends(m, x, prompt_length[:, None])
        own = self.rates.columns["step"] + self.rates.columns["sequence"] * m
        p = s["stages"]
        hops = (p - 1) * (
            self.rates.columns["hop"]
            + 2 * tokens * s["hidden"] / self.rates.columns["link"]
        )
        total = layers + p * own + first + last + hops
        slowest = (
            layers / p + own + np.where(p > 1, np.maximum(first, last), first + last)
        )
        return Totals(total[:, 0], slowest[:, 0], hops[:, 0])

    def _layers(self, m: FloatArray, x: FloatArray, tokens: FloatArray,
                context: FloatArray, attended: FloatArray) -> FloatArray:  # fmt: skip
        f = self._figures
        seconds = (
            self._work["own"]
            + self._matrices(m + x)
            + self._attention(m, x, context, attended)
            + self._experts(tokens)
            + self._communication(m + x, tokens)
        )
        total: FloatArray = (f["layers"] * seconds).sum(axis=1, keepdims=True)
        return total

    @cached_property
    def _work(self) -> dict[str, FloatArray]:
        """What does not depend on the load: seconds per token, per slot, start-ups."""
        f, c, s = self._figures, self.rates.columns, self._shape
        expert_flops, head_flops = (
            np.take_along_axis(self.rates.flops, which.astype(np.int64), axis=1)
            for which in (f["expert_format"], s["format"])
        )
        unpacked = 1 + (c["unpacking"] - 1) * f["expert_packed"]
        own = c["layer"] * np.minimum(f["attention"] + f["has_ffn"], 1)
        return {
            "own": own + c["experts"] * (f["top_k"] > 0),
            "per_token": 2
            * (f["parameters"] / self.rates.flops[:, None, :]).sum(axis=2),
            "read": (f["read"] + (c["unpacking"] - 1) * f["packed_read"])
            / c["weights"],
            "hidden": c["accesses"] * s["hidden"] / c["weights"],
            "expert_row": 2 * f["expert_parameters"] / expert_flops,
            "expert_read": f["expert_read"] * unpacked / c["weights"],
            "head_row": 2 * s["head"] / head_flops,
            "head_read": s["head"] * s["value"] / c["weights"],
            **{f"start_{k}": self.rates.latency(s[k]) for k in _COLLECTIVES},
        }

    def _matrices(self, tokens: FloatArray) -> FloatArray:
        w, exponent = self._work, self.rates.columns["exponent"]
        both = terms.joined(w["per_token"] * tokens, w["read"], exponent)
        return both + w["hidden"] * tokens

    def _attention(self, m: FloatArray, x: FloatArray, context: FloatArray,
                   attended: FloatArray) -> FloatArray:  # fmt: skip
        f, c = self._figures, self.rates.columns
        seen = m * np.minimum(context, f["window"])
        decode = terms.joined(
            seen * f["kv_bytes"] / c["kv"],
            seen * f["decode_flops"] / c["attention"],
            c["exponent"],
        )
        pairs = x * terms.prompt_pairs(attended, c["ramp"], f["window"])
        return decode + pairs * f["prefill_flops"] / c["attention"]

    def _experts(self, tokens: FloatArray) -> FloatArray:
        f, c, s, w = self._figures, self.rates.columns, self._shape, self._work
        # fewer than one sequence on average: an iteration has one, or does not happen
        rows = np.ceil(tokens)
        awake = f["slots"] * terms.woken(f["experts"], f["top_k"], rows)
        pairs = rows * f["top_k"] / s["ep"] * f["balance"]
        rows = np.maximum(pairs, awake * c["tile"])
        return terms.joined(
            w["expert_row"] * rows, w["expert_read"] * awake, c["exponent"]
        )

    def _communication(self, rank_tokens: FloatArray, tokens: FloatArray) -> FloatArray:
        f, c, s = self._figures, self.rates.columns, self._shape
        one = terms.all_reduce(
            rank_tokens * s["hidden"], s["tp"], self._work["start_tp"], c["link"]
        )
        exchanged = (f["top_k"] > 0) & (s["dp"] > 1)
        after = np.where(exchanged, self._exchange(tokens), one * f["has_ffn"])
        return one * f["attention"] + after

    def _exchange(self, tokens: FloatArray) -> FloatArray:
        f, c, s = self._figures, self.rates.columns, self._shape
        gathered = 2 * terms.all_gather(
            tokens * s["hidden"], s["dp"], self._work["start_dp"], c["link"]
        )
        inside = f["top_k"] * (1 - 1 / s["ep"])
        way = terms.one_way(
            tokens / s["gpus"] * s["hidden"], inside, f["copies_across"],
            self._work["start_near"], c["network_latency"],
            c["link"], c["network"], s["islands"],
        )  # fmt: skip
        partial = terms.all_reduce(
            tokens / s["ep"] * s["hidden"], s["moe_tp"],
            self._work["start_moe_tp"], c["link"],
        )  # fmt: skip
        return np.where(s["ep"] > 1, 2 * way + partial, gathered)

    def _ends(
        self, m: FloatArray, x: FloatArray, prompt_length: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        c, s, w = self.rates.columns, self._shape, self._work
        message = (m + x) * s["hidden"]
        first = message / c["weights"] + terms.all_reduce(
            message, s["tp"], w["start_tp"], c["link"]
        )
        rows = m + x / prompt_length
        last = terms.joined(w["head_row"] * rows, w["head_read"], c["exponent"])
        last = last + terms.all_gather(
            rows * s["logit"], s["tp"], w["start_tp"], c["link"]
        )
        return first, last
