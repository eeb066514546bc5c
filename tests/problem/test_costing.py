"""Memory tables against the formulas of one stage, and batches against all batches."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from shardwright.cost.lengths import ceil_div, ceil_fraction
from shardwright.cost.memory import ROLES
from shardwright.ingest import load
from shardwright.problem.batches import LargestBatches
from shardwright.problem.compile import Compiler
from shardwright.problem.types import Unit, stage_roles

INSTANCES = Path(__file__).parents[2] / "instances"
FILES = (
    "production/gemma3-27b-4xl40s.yaml",
    "heterogeneous/llama3-70b-8xh100-8xa100-16xl4.yaml",
    "moe/mixtral-8x7b-8xh100.yaml",
    "moe/deepseek-v3-32xh200.yaml",
    "seeds/moe-30b-16gpu-apart.yaml",
)


@pytest.fixture(params=FILES)
def compiler(request: pytest.FixtureRequest) -> Compiler:
    return Compiler(load(INSTANCES / request.param))


def scalar_role_bytes(
    compiler: Compiler, unit: Unit, role: int, m: int, chunk: int
) -> int:
    """The formula of docs/cost-model.md section 3, at one operating point."""
    mine = ceil_div(m, unit.shape.attn_dp)
    rows = mine + ceil_fraction(chunk / compiler.mix.prompt_work)
    tokens = mine + ceil_div(chunk, unit.shape.cp)
    return compiler.costs._role_bytes(unit, role, tokens, rows, chunk)


def test_bytes_outside_layers_are_those_of_every_point(compiler: Compiler) -> None:
    rng = random.Random(5)
    m = np.array([rng.randint(0, 4096) for _ in range(20)], dtype=np.int64)
    chunk = np.array([rng.randint(0, 9000) for _ in range(20)], dtype=np.int64)
    for unit in rng.sample(compiler.units, min(4, len(compiler.units))):
        table = compiler.costs.role_bytes(unit, m, chunk)
        for i in range(20):
            for role in range(len(ROLES)):
                one = scalar_role_bytes(compiler, unit, role, int(m[i]), int(chunk[i]))
                assert table[i, role] == one


def test_bytes_of_layers_are_those_of_every_batch(compiler: Compiler) -> None:
    rng = random.Random(6)
    precision, mix = compiler.instance.precision, compiler.mix
    batches = np.array([rng.randint(1, 4096) for _ in range(20)], dtype=np.int64)
    for unit in rng.sample(compiler.units, min(4, len(compiler.units))):
        ranks = compiler.costs._attention_ranks(unit.shape)
        for prompts_only in (False, True):
            table = compiler.costs.kind_bytes(unit, batches, prompts_only)
            for i, batch in enumerate(batches.tolist()):
                mine = ceil_div(batch, unit.shape.attn_dp)
                room = mix.kv_tokens(mine, prompts_only)
                for g, rank in enumerate(ranks):
                    kv = rank.kv_bytes(precision, room, mine)
                    assert table[i, g] == rank.weight_bytes(precision) + kv


def fits(
    compiler: Compiler, unit: Unit, stages: int, q: int, batch: int, chunk: int
) -> bool:
    """Greedy filling, layer by layer."""
    costs, kinds = compiler.costs, compiler.instance.model.kind_indices()
    capacity = compiler.classes[unit.gpu_class].capacity_bytes
    per_kind = costs.kind_bytes(unit, np.array([batch]))[0].tolist()
    experts, m = costs.expert_kind_bytes(unit), ceil_div(batch, q)
    apart = capacity - int(costs.expert_role_bytes(unit, np.array([m + chunk]))[0])
    position = 0
    for role in stage_roles(stages):
        left, room = capacity - scalar_role_bytes(compiler, unit, role, m, chunk), apart
        if min(left, room) < 0:
            return False
        while position < len(kinds):
            kind = kinds[position]
            if per_kind[kind] > left or experts[kind] > room:
                break
            left, room = left - per_kind[kind], room - experts[kind]
            position += 1
    return position == len(kinds)


def test_largest_batches_are_the_last_that_fit(compiler: Compiler) -> None:
    rng = random.Random(7)
    chunks = compiler.grid.chunk_tokens
    batches = LargestBatches(
        compiler.costs, compiler.classes, compiler.units, compiler.max_stages, chunks
    )
    most, fitting = compiler.instance.workload.max_batch, 0
    for unit in rng.sample(compiler.units, min(6, len(compiler.units))):
        pairs = [(rng.randint(1, 8), rng.randint(1, 8)) for _ in range(6)]
        stages, q = np.array(pairs, dtype=np.int64).T
        largest = batches._by_memory(unit, stages, q, chunks[0])
        for (p, one), m in zip(pairs, largest.tolist(), strict=True):
            fitting += m > 0
            assert m == 0 or fits(compiler, unit, p, one, m, chunks[0])
            assert m == most or not fits(compiler, unit, p, one, m + 1, chunks[0])
    assert fitting > 0
