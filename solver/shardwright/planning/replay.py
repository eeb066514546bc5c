"""From rows to deployments: shapes, memory room, and predictions by mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np
from numpy.typing import NDArray

from shardwright.cost import serving
from shardwright.cost.memory import ONLY, framework_bytes, stage_weight_bytes
from shardwright.cost.rank import RankLayer
from shardwright.cost.rates import Rates
from shardwright.cost.shape import StageShape
from shardwright.cost.stacked import Deployment, Stack
from shardwright.ingest import catalogue
from shardwright.planning import replay_runs, run_names
from shardwright.planning.runs import METRICS, Row, Skipped, Table, Worker
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.model import ModelSpec, MoeFfn
from shardwright.schema.workload import Limits, Precision

FloatArray = NDArray[np.float64]

CHUNK_TOKENS = 8192.0
MEMORY_SHARE = 0.92
MAX_BATCH = {
    "vllm": 1024,
    "vllm-2024": 256,
    "vllm-2024-rocm": 256,
    "sglang": 2048,
    "trtllm": 2048,
    "trtllm-2024": 2048,
}
"""Sequences that an engine runs at once by default."""


@dataclass(frozen=True)
class Resolver:
    """How names of GPUs and models are looked up; both raise Skipped.

    ``model`` takes the published name and a short one.
    """

    gpu: Callable[[str], GpuSpec]
    model: Callable[[str, str], ModelSpec]


def _catalogue_gpu(name: str) -> GpuSpec:
    try:
        return catalogue.gpu(name)
    except InvalidInstance:
        raise Skipped("GPU unknown to the catalogue") from None


def _catalogue_model(name: str, short: str) -> ModelSpec:
    for text in (name, short):
        try:
            return catalogue.model(text)
        except InvalidInstance:
            continue
    raise Skipped("model dimensions unknown to the catalogue")


CATALOGUE = Resolver(_catalogue_gpu, _catalogue_model)
"""Names as the catalogue has them."""


def shape_of(worker: Worker, gpu: GpuSpec, moe: bool) -> StageShape:
    """The stage's shape; experts lie over its GPUs."""
    group = worker.tp * worker.attn_dp
    if not moe:
        return StageShape.dense(worker.tp)
    ep = gcd(worker.ep, group)
    islands = max(1, -(-group // gpu.island_gpus))
    if group % islands:
        islands = 1
    return StageShape(worker.tp, worker.attn_dp, group // ep, ep, 1, 0, islands)


def deployment_of(row: Row, worker: Worker, resolver: Resolver) -> Deployment:
    """What a row says was run. Raises Skipped.

    Weights whose format is not published are 16 bit, or fp8 where these do not fit.
    """
    weights = run_names.weight_format(row)
    made = _in_format(row, worker, resolver, weights)
    unsaid = run_names.published_format(row) is None
    if unsaid and "fp8" in made.gpu.dense_tflops and _free_bytes(made) <= 0:
        return _in_format(row, worker, resolver, "fp8")
    return made


def _in_format(
    row: Row, worker: Worker, resolver: Resolver, weights: str
) -> Deployment:
    gpu, spec = resolver.gpu(row.gpu), resolver.model(row.model, row.model_name)
    engine = run_names.engine(row)
    precision = Precision(
        weights=weights,  # type: ignore[arg-type]
        kv_cache=run_names.cache_format(row, weights, engine),  # type: ignore[arg-type]
    )
    moe = any(isinstance(k.ffn, MoeFfn) for k in spec.layer_kinds)
    stages = min(worker.pp, len(spec.layers))
    shape = shape_of(worker, gpu, moe)
    return Deployment(
        run_names.deployed(spec, weights), precision, gpu, shape, engine, stages
    )


def _ranks(d: Deployment) -> list[RankLayer]:
    return [RankLayer.of(d.spec, k, d.shape, d.precision) for k in d.spec.layer_kinds]


def _free_bytes(d: Deployment) -> float:
    """What weights and framework leave of one GPU, stages taken alike."""
    ranks = _ranks(d)
    weights = sum(ranks[k].weight_bytes(d.precision) for k in d.spec.kind_indices())
    weights += stage_weight_bytes(d.spec, d.precision, d.shape.tp, ONLY)
    own = framework_bytes(d.gpu, Limits())
    return MEMORY_SHARE * d.gpu.memory_bytes - weights / d.stages - own


def room(d: Deployment, row: Row) -> float:
    """Most sequences of a replica: KV room at full length, and the engine's limit.

    At least one: a published run did run.
    """
    ranks, kinds = _ranks(d), d.spec.kind_indices()
    length = int(min(row.input_tokens + row.output_tokens, 1e9))
    each = sum(ranks[k].kv_bytes(d.precision, length, 1) for k in kinds) / d.stages
    fits = _free_bytes(d) / max(each, 1.0) * d.shape.attn_dp
    most = MAX_BATCH.get(d.engine, 1024) * d.shape.attn_dp * d.stages
    bound = min(fits, most)
    if row.requests is not None and row.mode == "offline_max":
        bound = min(bound, row.requests / row.workers)
    return float(max(bound, 1.0))


@dataclass(frozen=True)
class Predictor:
    """Rows with their deployments; predicts under any constants."""

    rows: tuple[Row, ...]
    deployments: tuple[Deployment, ...]
    prefills: tuple[Deployment, ...]

    @classmethod
    def of(
        cls, table: Table, resolver: Resolver = CATALOGUE
    ) -> tuple[Predictor, dict[str, int]]:
        """Rows that can be predicted, and how many were skipped, by reason."""
        rows, main, first = [], [], []
        skipped = dict(table.skipped)
        for row in table.rows:
            try:
                d = deployment_of(row, row.worker, resolver)
                p = d
                if row.prefill is not None:
                    p = deployment_of(row, row.prefill, resolver)
            except Skipped as why:
                skipped[str(why)] = skipped.get(str(why), 0) + 1
                continue
            rows.append(row)
            main.append(d)
            first.append(p)
        return cls(tuple(rows), tuple(main), tuple(first)), skipped

    def only(self, keep: list[int]) -> Predictor:
        """The predictor of some of the rows."""
        return Predictor(
            tuple(self.rows[i] for i in keep),
            tuple(self.deployments[i] for i in keep),
            tuple(self.prefills[i] for i in keep),
        )

    @cached_property
    def _caps(self) -> FloatArray:
        return np.array([room(d, r) for d, r in
                         zip(self.deployments, self.rows, strict=True)])  # fmt: skip

    @cached_property
    def measured(self) -> dict[str, FloatArray]:
        """Published figures, NaN where there is none; ms and tokens/s."""
        return {
            m: np.array([r.measured(m) or np.nan for r in self.rows]) for m in METRICS
        }

    @cached_property
    def _parts(self) -> list[tuple[str, NDArray[np.int64], Stack, Stack | None]]:
        keys = [r.mode if r.prefill is None else "disaggregated" for r in self.rows]
        parts = []
        for key in sorted(set(keys)):
            at = np.array([i for i, k in enumerate(keys) if k == key])
            main = Stack.of([self.deployments[i] for i in at])
            other = None
            if key == "disaggregated":
                other = Stack.of([self.prefills[i] for i in at])
            parts.append((key, at, main, other))
        return parts

    def predict(
        self,
        gpus: dict[str, GpuSpec] | None = None,
        client: serving.Client | None = None,
        played: bool = False,
    ) -> dict[str, FloatArray]:
        """Predicted TTFT and TPOT (ms) and throughput (tokens/s), by row.

        ``gpus`` replaces GPU types by name (other constants). ``played``: what depends
        on how a run went is taken from the run itself, request by request, instead
        of the closed forms (milliseconds a row).
        """
        out = {m: np.full(len(self.rows), np.nan) for m in METRICS}
        for key, at, main, other in self._parts:
            runs = self._runs(_under(main, gpus), at, client, False)
            first = None
            if other is not None:
                first = self._runs(_under(other, gpus), at, client, True)
            found = self._measures(key, at, runs, first)
            out["ttft"][at] = found.ttft_s * 1e3
            out["tpot"][at] = found.tpot_s * 1e3
            out["throughput"][at] = found.output_tokens_per_s
            if played:
                self._play(at, runs, first, out)
        return out

    def _play(
        self,
        at: NDArray[np.int64],
        runs: serving.Runs,
        first: serving.Runs | None,
        out: dict[str, FloatArray],
    ) -> None:
        """TTFT of runs that can be played; of finite open ones all figures."""
        rows = [self.rows[i] for i in at]
        if not any(map(replay_runs.is_played, rows)):
            return
        for i, row, one in zip(
            at, rows, replay_runs.play(rows, runs, first), strict=True
        ):
            if one is None:
                continue
            out["ttft"][i] = one.ttft_ms
            if row.mode != "closed_loop" and row.requests is not None:
                out["tpot"][i] = one.tpot_ms
                out["throughput"][i] = one.output_tokens_per_s

    def _column(self, at: NDArray[np.int64], name: str) -> FloatArray:
        return np.array([getattr(self.rows[i], name) or 0.0 for i in at], float)

    def _runs(
        self,
        stack: Stack,
        at: NDArray[np.int64],
        client: serving.Client | None,
        prefill: bool,
    ) -> serving.Runs:
        replicas = self._column(at, "prefill_workers" if prefill else "workers")
        return serving.Runs(
            stack, self._column(at, "input_tokens"), self._column(at, "output_tokens"),
            np.maximum(replicas, 1.0), self._caps[at],
            np.full(len(at), CHUNK_TOKENS), client or serving.Client.usual(),
        )  # fmt: skip

    def _measures(self, key: str, at: NDArray[np.int64], runs: serving.Runs,
                  first: serving.Runs | None) -> serving.Measures:  # fmt: skip
        load = self._column(at, "concurrency")
        median = np.array([self.rows[i].ttft_is_median for i in at])
        if first is not None:
            return serving.disaggregated(first, runs, load, median)
        if key == "closed_loop":
            return serving.closed_loop(runs, load, median)
        if key == "static_batch":
            return serving.static_batch(runs, load)
        if key == "single_stream":
            return serving.single_stream(runs)
        if key == "poisson":
            return serving.poisson(runs, self._column(at, "rate_per_s"))
        return serving.offline_max(runs)


def _under(stack: Stack, gpus: dict[str, GpuSpec] | None) -> Stack:
    if gpus is None:
        return stack
    parts = [(gpus.get(d.gpu.name, d.gpu), d.engine) for d in stack.deployments]
    return stack.with_rates(Rates.of(parts))
