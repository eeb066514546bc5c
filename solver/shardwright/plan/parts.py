"""Memory of the GPUs of one stage, part by part (docs/cost-model.md section 3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from shardwright.cost.disaggregated import (
    attention_part,
    expert_gpu_bytes,
    expert_part,
)
from shardwright.cost.lengths import RequestMix, ceil_div, ceil_fraction
from shardwright.cost.memory import (
    activation_bytes,
    communication_bytes,
    framework_bytes,
    stage_weight_bytes,
    tokens_of_rank,
)
from shardwright.cost.rank import RankLayer
from shardwright.cost.shape import StageShape
from shardwright.problem import stage_roles
from shardwright.schema.instance import Instance
from shardwright.schema.plan import MemoryParts


@dataclass(frozen=True, eq=False)
class MemoryAnatomy:
    """Memory parts of any stage of any replica of an instance, in bytes."""

    instance: Instance

    @cached_property
    def mix(self) -> RequestMix:
        """Moments of the workload."""
        return RequestMix.of(self.instance.workload)

    @cached_property
    def _ranks(self) -> dict[StageShape, tuple[RankLayer, ...]]:
        return {}

    def ranks(self, shape: StageShape) -> tuple[RankLayer, ...]:
        """One GPU's shard of every layer kind."""
        if shape not in self._ranks:
            model, precision = self.instance.model, self.instance.precision
            self._ranks[shape] = tuple(
                RankLayer.of(model, k, shape, precision) for k in model.layer_kinds
            )
        return self._ranks[shape]

    def attention_ranks(self, shape: StageShape) -> tuple[RankLayer, ...]:
        """One attention GPU's shard; every GPU's, unless disaggregated."""
        ranks = self.ranks(shape)
        return tuple(map(attention_part, ranks)) if shape.disaggregated else ranks

    def kind_counts(self, start: int, end: int) -> dict[int, int]:
        """How many layers of each kind lie in [start, end)."""
        return dict(Counter(self.instance.model.kind_indices()[start:end]))

    def layer_bytes(
        self,
        shape: StageShape,
        start: int,
        end: int,
        sequences: int,
        prompts_only: bool = False,
    ) -> tuple[int, int]:
        """Weights and KV cache of the layers [start, end) on one (attention) GPU.

        ``sequences`` are those of one attention rank.
        """
        precision = self.instance.precision
        room = self.mix.kv_tokens(sequences, prompts_only)
        weights = kv = 0
        for kind, count in self.kind_counts(start, end).items():
            rank = self.attention_ranks(shape)[kind]
            weights += count * rank.weight_bytes(precision)
            kv += count * rank.kv_bytes(precision, room, sequences)
        return weights, kv

    def stage(
        self,
        gpu_type: str,
        shape: StageShape,
        role: int,
        layers: tuple[int, int],
        batch: tuple[int, int, int],
    ) -> MemoryParts:
        """Parts of one GPU of a stage; of an attention GPU where disaggregated.

        ``batch`` is (sequences, sequences of a micro-batch, prefill chunk tokens);
        without sequences in its micro-batches a replica holds prompts alone.
        """
        sequences, micro_batch = (ceil_div(n, shape.attn_dp) for n in batch[:2])
        chunk = batch[2]
        model, precision = self.instance.model, self.instance.precision
        gpu = self.instance.cluster.gpu_types[gpu_type]
        weights, kv = self.layer_bytes(shape, *layers, sequences, not micro_batch)
        tokens = tokens_of_rank(shape, micro_batch, chunk)
        logit_rows = micro_batch + ceil_fraction(chunk / self.mix.prompt_work)
        return MemoryParts(
            weights=weights + stage_weight_bytes(model, precision, shape.tp, role),
            kv_cache=kv,
            activations=activation_bytes(
                model, precision, self.attention_ranks(shape), tokens, logit_rows, role
            ),
            communication=communication_bytes(
                model,
                precision,
                gpu,
                shape,
                self.attention_ranks(shape),
                (tokens, chunk),
                role,
            ),
            framework=framework_bytes(gpu, self.instance.limits),
        )

    def expert_stage(
        self,
        gpu_type: str,
        shape: StageShape,
        layers: tuple[int, int],
        batch: tuple[int, int, int],
    ) -> MemoryParts:
        """Parts of one expert GPU; ``batch`` as in ``stage``."""
        i, gpu = self.instance, self.instance.cluster.gpu_types[gpu_type]
        ranks = [expert_part(rank) for rank in self.ranks(shape)]
        tokens = batch[1] + batch[2]
        rest = expert_gpu_bytes(i.model, i.precision, gpu, i.limits, shape, tokens)
        return MemoryParts(
            weights=sum(
                count * ranks[kind].weight_bytes(i.precision)
                for kind, count in self.kind_counts(*layers).items()
            ),
            kv_cache=0,
            activations=rest.activations,
            communication=rest.communication,
            framework=rest.framework,
        )

    def pipeline(
        self,
        gpu_types: Sequence[str],
        shapes: Sequence[StageShape],
        layers: Sequence[tuple[int, int]],
        batch: tuple[int, int, int],
    ) -> list[MemoryParts]:
        """Parts of every stage of a replica."""
        roles = stage_roles(len(layers))
        stages = zip(gpu_types, shapes, roles, layers, strict=True)
        return [self.stage(*stage, batch) for stage in stages]
