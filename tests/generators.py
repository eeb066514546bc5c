"""Seeded tiny instances, tight around equality, for agreement and metamorphic tests.

``random_instance(seed)`` builds documents in two steps: a loose instance is compiled,
a few of its designs are drawn and evaluated, and the limits of the final instance are
then set to the figures of these designs or one unit beside them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

from shardwright.problem import (
    Design,
    Figures,
    Problem,
    StageChoice,
    compile_problem,
)
from shardwright.schema.instance import Instance

Doc = dict[str, Any]
GOALS = ("gpus", "cost", "throughput", "tpot", "ttft")


def random_instance(seed: int) -> Instance:
    """A tiny instance: at most 5 GPUs of 2 types and 6 layers of 2 kinds."""
    return instance_of(random_document(seed))


def instance_of(document: Doc) -> Instance:
    """The instance that a JSON document states."""
    return Instance.model_validate_json(json.dumps(document))


def random_document(
    seed: int,
    experts: bool = False,
    apart: bool = False,
    spread: bool = False,
    context: bool = False,
) -> Doc:
    """The document of ``random_instance``; ``experts``: of a tiny mixture of experts.

    The islands of one GPU type then differ, so that no stage spreads over several.
    ``apart``: an engine that may lay experts on GPUs of their own, and limits around
    designs that do. ``spread``: equal islands, over which stages may spread.
    ``context``: a grid with context parallelism, and with copies of the experts.
    """
    draw = _Draw(Random(seed), experts or apart or spread, apart, spread, context)
    kind = "apart-" if apart else "experts-" if experts else ""
    kind = "spread-" if spread else kind
    kind = f"context-{kind}" if context else kind
    document = draw.loose(f"random-{kind}{seed}")
    problem = compile_problem(instance_of(document))
    samples = [f for f in (draw.design(problem) for _ in range(12)) if f is not None]
    draw.tighten(document, problem, samples)
    return document


@dataclass(frozen=True)
class Sample:
    """A design with its figures."""

    design: Design
    figures: Figures


@dataclass(frozen=True)
class _Draw:
    rng: Random
    experts: bool = False
    apart: bool = False
    spread: bool = False
    context: bool = False

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    # -- the loose instance ------------------------------------------------------

    def loose(self, name: str) -> Doc:
        document: Doc = {
            "name": name,
            "model": self._model(),
            "cluster": self._cluster(),
            "workload": self._workload(),
            "precision": self._precision(),
            "engine": self._engine(),
            "limits": {"memory_fraction": 1.0},
        }
        document["grid"] = self._grid(document["workload"])
        goals = self.rng.sample(GOALS, self.rng.choice((1, 1, 2, 3)))
        if not self.chance(0.15):  # else the default objective
            document["objective"] = goals
        return document

    def _model(self) -> Doc:
        kinds = [self._kind("a", plain=True)]
        if self.chance(0.5):
            kinds.append(self._kind("b", plain=False))
        count = self.rng.choice((1, 2, 3, 3, 4, 4, 5, 6))
        names = [k["name"] for k in kinds]
        return {
            "name": "tiny",
            "hidden": 128,
            "vocabulary": self.rng.choice((500, 1000, 4000)),
            "tied_embeddings": self.chance(0.5),
            "max_position_tokens": None,
            "final_norm_width": 128,
            "layer_kinds": kinds,
            "layers": [self.rng.choice(names) for _ in range(count)],
        }

    def _kind(self, name: str, plain: bool) -> Doc:
        kv_heads = self.rng.choice((1, 2, 4))
        attention: Doc | None = {
            "heads": 4,
            "kv_heads": kv_heads,
            "head_dim": self.rng.choice((16, 32)),
            "qkv_bias": self.chance(0.2),
        }
        if attention is not None and self.chance(0.3):
            attention["window_tokens"] = self.rng.choice((16, 64))
        ffn: Doc | None = {
            "intermediate": self.rng.choice((128, 300, 700)),
            "matrices": self.rng.choice((2, 3)),
        }
        if self.experts:
            attention, ffn = self._latent(attention), self._mixture(ffn)
        if not plain and self.chance(0.3):
            attention = None
        if not plain and self.chance(0.3):
            ffn = None
        width = 256 if attention or ffn else 0
        return {
            "name": name,
            "attention": attention,
            "ffn": ffn,
            "norm_width": width,
        }

    def _latent(self, attention: Doc | None) -> Doc | None:
        if not self.chance(0.4):
            return attention
        return {
            "type": "mla",
            "heads": 4,
            "q_lora_rank": self.rng.choice((None, 32)),
            "kv_lora_rank": self.rng.choice((16, 48)),
            "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 8,
            "v_head_dim": 16,
        }

    def _mixture(self, ffn: Doc | None) -> Doc | None:
        if not (self.apart or self.spread or self.chance(0.75)):
            return ffn
        experts = self.rng.choice((2, 4, 6))
        return {
            "type": "moe",
            "experts": experts,
            "top_k": self.rng.choice((1, 2)),
            "intermediate": self.rng.choice((64, 200)),
            "shared_experts": 1,
            "shared_intermediate": 96,
            "bias": self.chance(0.2),
            "correction_bias": self.chance(0.3),
        }

    def _cluster(self) -> Doc:
        if self.spread:
            return self._equal_nodes()
        if self.experts or self.context:
            return self._separate_nodes()
        kinds = ("fast", "slow")[: self.rng.choice((1, 1, 2))]
        groups, room = [], self.rng.choice((2, 3, 4, 4, 5))
        while room and len(groups) < 3:
            gpus = self.rng.randint(1, room)
            group = self._group(f"n{len(groups)}", self.rng.choice(kinds), gpus)
            groups.append(group)
            room -= gpus * group.get("count", 1)
            room = max(room, 0)
        return {"gpu_types": {k: self._gpu(k) for k in kinds}, "nodes": groups}

    def _separate_nodes(self) -> Doc:
        """One node of every type: no stage can spread over equal islands."""
        kinds = ("fast", "slow")[: self.rng.choice((1, 1, 2))]
        room = self.rng.choice((2, 3, 4, 4, 5))
        if self.apart:
            kinds, room = kinds[: self.rng.choice((1, 2))], max(3, room)
        if self.context:
            kinds, room = kinds[: self.rng.choice((1, 1, 2))], max(4, room)
        groups = []
        for i, kind in enumerate(kinds):
            gpus = max(1, room if i == len(kinds) - 1 else self.rng.randint(1, room))
            groups.append({"name": f"n{i}", "gpu": kind, "gpus": gpus})
            room -= gpus
        return {"gpu_types": {k: self._gpu(k) for k in kinds}, "nodes": groups}

    def _equal_nodes(self) -> Doc:
        """Two to four equal islands of one type, at times one more of another."""
        gpus, count = self.rng.choice(((1, 2), (1, 3), (1, 4), (2, 2), (2, 2)))
        groups: list[Doc] = [{"name": "n", "gpu": "fast", "gpus": gpus, "count": count}]
        kinds = ["fast"]
        if self.chance(0.3):
            kinds.append(self.rng.choice(("fast", "slow")))
            groups.append({"name": "m", "gpu": kinds[-1], "gpus": 1})
        types = {k: self._gpu(k) for k in dict.fromkeys(kinds)}
        return {"gpu_types": types, "nodes": groups}

    def _group(self, name: str, gpu: str, gpus: int) -> Doc:
        group: Doc = {"name": name, "gpu": gpu, "gpus": gpus}
        if gpus == 1 and self.chance(0.3):
            group["count"] = 2
        if gpus > 1 and self.chance(0.3):
            group["island_gpus"] = self.rng.randint(1, gpus)
        if gpus > 1 and self.chance(0.25):
            group[self.rng.choice(("reserved", "failed"))] = [self.rng.randrange(gpus)]
        return group

    def _gpu(self, name: str) -> Doc:
        slow = self.rng.uniform(1.2, 3) if name == "slow" else 1.0
        link = self.rng.uniform(0.05, 0.6)
        hop_us = self.rng.choice((10, 50, 200))
        across = (0.6, 1) if self.spread else (0.1, 1)
        return {
            "name": name,
            "memory": "1 GB",
            "hbm_gbyte_per_s": round(self.rng.uniform(0.5, 2) / slow, 3),
            "dense_tflops": {"bf16": round(self.rng.uniform(0.03, 0.2) / slow, 4)},
            "link_technology": "test",
            "link_gbyte_per_s": round(link, 3),
            "island_gpus": 8,
            "network_gbyte_per_s": round(link * self.rng.uniform(*across), 4),
            "price_usd_per_hour": self.rng.choice((None, 0.5, 1, 2.25)),
            "calibration": self._calibration(hop_us),
        }

    def _calibration(self, hop_us: int) -> Doc:
        return {
            "name": "test",
            "hbm_efficiency": 0.9,
            "kv_read_efficiency": 0.7,
            "matmul_efficiency": {"bf16": 0.8},
            "attention_efficiency": 0.5,
            "link_efficiency": 0.9,
            "network_efficiency": 0.9,
            "allreduce_latency_us": {2: self.rng.choice((5, 40, 150)), 4: 60},
            "hop_latency_us": hop_us,
            "network_latency_us": hop_us * self.rng.choice((1, 3, 8)),
            "layer_overhead_us": 0 if self.apart else self.rng.choice((0, 20, 100)),
            "step_overhead_us": self.rng.choice((20, 100, 400)),
            "sequence_overhead_us": self.rng.choice((0, 10, 40)),
            "framework_memory": "1 MB",
            "communicator_memory": "100 KB",
            "source": "drawn",
            "confidence": "low",
        }

    def _workload(self) -> Doc:
        return {
            "input_tokens": self._length((20, 60, 150)),
            "output_tokens": self._length((10, 40, 100)),
            "max_context_tokens": self.rng.choice((256, 512)),
            "max_batch": 64,
            "kv_reserve": self.rng.choice(("p99", "max_context")),
            "prefix_cache_hit_ratio": self.rng.choice((0, 0, 0.25)),
        }

    def _length(self, means: tuple[int, ...]) -> Doc:
        mean, form = self.rng.choice(means), self.rng.random()
        if form < 0.6:
            return {"constant": mean}
        if form < 0.8:
            return {"mean": mean, "cv": 0.5}
        return {"histogram": [[mean, 1], [2 * mean, 1]]}

    def _precision(self) -> Doc:
        if self.chance(0.7):
            return {}
        return {
            "weights": self.rng.choice(("fp8", "int4")),
            "kv_cache": self.rng.choice(("bf16", "fp8")),
        }

    def _engine(self) -> Doc:
        if self.apart:
            rules = {"equal_shape_per_stage": self.chance(0.6)}
            rules["micro_batches_equal_stages"] = self.chance(0.5)
            return {"name": "generic", "rules": rules}
        if self.context and self.chance(0.5):  # SGLang has it for experts alone
            return {"name": "sglang" if self.experts else "generic"}
        if self.experts and not self.context and self.chance(0.5):
            return {"name": self.rng.choice(("sglang", "trtllm"))}
        if not self.context and self.chance(0.5):
            return {"name": "vllm"}
        together = {"disaggregated_experts": False} if self.experts else {}
        if self.chance(0.5):
            return {"name": "generic", "rules": together}
        switches = (
            "micro_batches_equal_stages",
            "equal_shape_per_stage",
            "heads_divisible",
        )
        rules = {s: self.chance(0.5) for s in switches}
        return {"name": "generic", "rules": rules | together}

    def _grid(self, workload: Doc) -> Doc:
        sequences = self.rng.sample((1, 2, 3, 4, 6, 8, 12, 16), self.rng.choice((1, 2)))
        chunks = self.rng.sample((16, 32, 64, 128, 256), self.rng.choice((1, 1, 2)))
        micro_batches = self.rng.sample((1, 2, 3, 4), self.rng.choice((1, 2)))
        grid: Doc = {
            "sequences": sorted(sequences),
            "prefill_chunk_tokens": sorted({*chunks, 256})[:2],
        }
        grid["micro_batches"] = sorted(micro_batches)
        if self.context:
            grid["micro_batches"] = [1, 2]
            grid["context_parallel"] = self.rng.choice(([1, 2], [2], [1, 2, 3]))
            if self.chance(0.5):
                grid["moe_dp"] = self.rng.choice(([1], [1, 2], [2], [1, 2, 3, 4]))
        return grid

    # -- designs of it -----------------------------------------------------------

    def design(self, problem: Problem) -> Sample | None:
        """A random design, without regard to limits; None when the draw fails."""
        if not problem.points or not problem.units:
            return None
        point = self.rng.randrange(len(problem.points))
        counts = problem.stage_counts(point)
        if not counts:
            return None
        stages = self.rng.choice(counts)
        cuts = sorted(self.rng.sample(range(1, problem.layers), stages - 1))
        edges = [0, *cuts, problem.layers]
        units = [self.rng.randrange(len(problem.units)) for _ in range(stages)]
        if self.context and self.chance(0.7):
            shapes = [unit.shape for unit in problem.units]
            grouped = [u for u, s in enumerate(shapes) if max(s.cp, s.moe_dp) > 1]
            units = self.rng.choices(grouped or units, k=stages)
        apart = [u for u, x in enumerate(problem.units) if x.shape.disaggregated]
        apart = self.rng.choices(apart) if apart and self.chance(0.8) else []
        apart += [u for u in units if problem.units[u].shape.disaggregated]
        if apart or problem.rules.equal_shape_per_stage:
            units = [(apart or units)[0]] * stages
        chosen = [problem.units[u] for u in units]
        crossings = tuple(
            a.gpu_class != b.gpu_class
            or max(a.islands, b.islands) > 1
            or self.chance(0.3)
            for a, b in pairwise(chosen)
        )
        if stages > 1 and any(map(problem.stands_alone, units)):
            return None
        parts = zip(units, edges[:-1], edges[1:], strict=True)
        choice = Design(point, tuple(StageChoice(*part) for part in parts), crossings)
        return Sample(choice, problem.figures(choice))

    # -- limits around them ------------------------------------------------------

    def tighten(self, document: Doc, problem: Problem, samples: list[Sample]) -> None:
        """Set limits at the figures of the samples, or one unit beside them."""
        if not (self.context and self.chance(0.6)):
            self._fleet_limits(document)
            self._fix(document, samples)
        if not samples:
            return
        if self.chance(0.75):
            self._memory(document, problem, samples)
        for metric in ("tpot", "itl", "prefill", "ttft", "e2e"):
            tight = self.context and metric in ("prefill", "ttft")
            if self.chance(0.25 if tight else 0.1):
                self._target(document, problem, metric, samples)
        for name in ("memory_imbalance", "compute_imbalance"):
            if self.chance(0.15):
                document["limits"][name] = self.rng.choice((0, 0.05, 0.2, 0.6))
        if self.chance(0.15):
            f = self.rng.choice(samples).figures
            share = max(1e-6, f.comm_ns / f.times.loop_ns)
            share = self.rng.choice((share, share * 1.1, share * 0.9))
            document["limits"]["communication_share"] = min(1.0, round(share, 6))
        if self.chance(0.6):
            self._rate(document, problem, samples)

    def _fleet_limits(self, document: Doc) -> None:
        limits = document["limits"]
        if self.chance(0.15):
            limits["spare_gpus"] = self.rng.choice((1, 1, 2))
        if self.chance(0.15):
            limits["max_gpus"] = self.rng.randint(1, 4)
        if self.chance(0.15):
            limits["max_cost_usd_per_hour"] = self.rng.choice((1, 2.25, 3.5, 5))
        if self.chance(0.15):
            limits["max_pipeline_stages"] = self.rng.randint(1, 3)
        if self.chance(0.1):
            # above an island's GPUs it lets stages spread: tests/search/test_across.py
            groups = document["cluster"]["nodes"]
            least = min(g.get("island_gpus") or g["gpus"] for g in groups)
            most = self.rng.randint(1, 3)
            limits["max_tensor_parallel"] = min(most, least)

    def _fix(self, document: Doc, samples: list[Sample]) -> None:
        fix: Doc = {}
        if self.apart and self.chance(0.1):
            fix["ping_pong"] = self.rng.choice((2, 3))
        if self.chance(0.06):
            fix["dp"] = self.rng.randint(1, 3)
        if self.chance(0.06):
            fix["tp"] = self.rng.randint(1, 2)
        if samples and self.chance(0.12):
            stages = self.rng.choice(samples).design.stages
            if self.chance(0.5):
                fix["layers"] = [s.end - s.start for s in stages]
            if self.chance(0.5):
                fix["pp"] = len(stages)
        if fix:
            document["fix"] = fix

    def _memory(self, document: Doc, problem: Problem, samples: list[Sample]) -> None:
        """Capacity of every class exactly at the need of one design, or a byte off.

        Long pipelines are preferred: with room to spare a single stage always wins.
        """
        wanted = max(
            self.rng.sample(samples, min(3, len(samples))),
            key=lambda s: len(s.design.stages),
        )
        figures = wanted.figures
        apart = figures.expert_memory_bytes or (0,) * len(figures.memory_bytes)
        fullest = map(max, figures.memory_bytes, apart)
        used = list(zip(wanted.design.stages, fullest, strict=True))
        for index, gpu_class in enumerate(problem.classes):
            needs = [m for s, m in used if problem.units[s.unit].gpu_class == index]
            need = max(needs or [m for _, m in used])
            need += self.rng.choice((-1, 0, 0, 0, 0, 1))
            gpu = document["cluster"]["gpu_types"][gpu_class.name]
            gpu["memory"] = f"{need} B"

    def _target(
        self, document: Doc, problem: Problem, metric: str, samples: list[Sample]
    ) -> None:
        times = self.rng.choice(samples).figures.times
        decode = -((1 - problem.output_mean) * times.tpot_ns // 1)
        value = {
            "tpot": times.tpot_ns,
            "itl": times.tpot_ns,
            "prefill": times.prefill_ns,
            "ttft": times.ttft_ns,
            "e2e": times.ttft_ns + int(decode),
        }[metric]
        limit_ns = value + self.rng.choice((-1, 0, 0, value // 10, value // 3))
        target = {"metric": metric, "limit_ms": limit_ns / 1e6}
        document.setdefault("slo", []).append(target)

    def _rate(self, document: Doc, problem: Problem, samples: list[Sample]) -> None:
        most = 1 if self.apart else 3
        wanted = sum(
            s.figures.rate_mtok_per_s
            for s in self.rng.sample(
                samples, min(len(samples), self.rng.randint(1, most))
            )
        )
        wanted = int(wanted * self.rng.choice((0.5, 0.9, 1, 1, 1)))
        rate = max(wanted, 1) / 1000 / float(problem.output_mean)
        document["workload"]["request_rate_per_s"] = rate
