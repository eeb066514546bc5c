"""Measured latencies: tables, the clock over them, refusals, and a solve."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from shardwright.check import check
from shardwright.cli.options import override
from shardwright.cost import aiconfigurator, latencies
from shardwright.cost.lengths import RequestMix
from shardwright.cost.measured import (
    AllReduce,
    DecodeAttention,
    Embedding,
    Exchange,
    Experts,
    Gemm,
    LatentBlock,
    NotMeasured,
    Operator,
    PrefillAttention,
    Tables,
    grid_of,
    prompt_grid,
)
from shardwright.cost.memory import FIRST, LAST, MIDDLE, ONLY
from shardwright.cost.rank import RankLayer
from shardwright.cost.shape import StageShape
from shardwright.cost.silicon import SiliconClock
from shardwright.cost.times import Load
from shardwright.ingest import gpu, load, model
from shardwright.ingest.load import instance_sha256
from shardwright.problem import Compiler
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.instance import Instance
from shardwright.schema.workload import Engine, Precision, Workload
from shardwright.solve import solve

WORKLOAD = """{"input_tokens": {"constant": 1024}, "output_tokens": {"constant": 256},
               "max_context_tokens": 4096}"""
MIX = RequestMix.of(Workload.model_validate_json(WORKLOAD))
LLAMA = model("meta-llama/Meta-Llama-3-70B-Instruct")
MIXTRAL = model("mistralai/Mixtral-8x7B-v0.1")
DEEPSEEK = model("deepseek-ai/DeepSeek-V3")
NARROW_LATENTS = model("deepseek-ai/DeepSeek-V2-Lite")
NODE = """
schema_version: "1.0"
name: silicon
model: meta-llama/Meta-Llama-3.1-8B
cluster:
  gpu_types:
    h100: {catalogue: H100-SXM}
  nodes:
    - {name: node, gpu: h100, gpus: 4}
workload:
  input_tokens: {constant: 1024}
  output_tokens: {constant: 256}
  max_batch: 64
  max_context_tokens: 2048
limits: {latency_margin: 0}
engine: {latencies: silicon}
"""


@dataclass(eq=False)
class Double:
    """Made-up times: a fixed part, and one per token by the operator's kind."""

    scale: float = 1.0
    lacks: tuple[type, ...] = ()
    asked: Counter[Operator] = field(default_factory=Counter)
    largest_group: int = 8
    identity: dict[str, str] = field(default_factory=lambda: {"system": "double"})

    def seconds(self, operator: Operator, tokens: int) -> float:
        if isinstance(operator, self.lacks):
            raise NotMeasured(f"no {operator.name}")
        self.asked[operator] += 1
        wide = operator.outer * operator.inner if isinstance(operator, Gemm) else 1e7
        return self.scale * (2e-6 + wide * 1e-14 * tokens)


def clock(spec: Any, shape: StageShape, source: Double | None = None) -> SiliconClock:
    return SiliconClock(spec, Precision(), MIX, shape, Tables(source or Double()))


def layer(one: SiliconClock, m: float, x: float) -> tuple[int, int]:
    spec, shape = one.spec, one.shape
    rank = RankLayer.of(spec, spec.layer_kinds[0], shape, Precision())
    on = Load.lone_chunk(np.array([m]), np.array([x]), shape.attn_dp)
    total, communication = one.layer(rank, on)
    return int(total[0]), int(communication[0])


def constant(one: SiliconClock, role: int) -> tuple[int, int]:
    on = Load.lone_chunk(np.array([8.0]), np.array([0.0]), 1)
    total, communication = one.stage_constant(role, on)
    return int(total[0]), int(communication[0])


def kinds(one: SiliconClock) -> Counter[str]:
    return Counter(operator.name for operator in one.operators())


def test_tables_are_exact_on_the_grid_and_linear_between() -> None:
    tables, operator = Tables(Double()), Gemm(4096, 4096, "bf16")
    grid = grid_of(operator)
    found = tables.seconds(operator, np.array(grid, dtype=np.float64))
    assert found.tolist() == [Double().seconds(operator, n) for n in grid]
    at = np.array([0.0, 1.0, 17.0, 2 * grid[-1]])
    none, one, between, beyond = tables.seconds(operator, at)
    assert none == one
    assert between == pytest.approx(Double().seconds(operator, 17))
    assert beyond == pytest.approx(2 * found[-1])


def test_attention_without_work_takes_no_time() -> None:
    tables = Tables(Double())
    none = np.zeros(1)
    decode = DecodeAttention(8, 1, 128, "bf16", False, 1152)
    prefill = PrefillAttention(8, 1, 128, "bf16", False, 0, 1024, 512)
    assert tables.seconds(decode, none) == tables.seconds(prefill, none) == 0


def test_every_operator_is_asked_for_once() -> None:
    source = Double()
    tables = Tables(source)
    for operator in (AllReduce(8192, 2), AllReduce(8192, 2), Embedding(8, 8)):
        tables.seconds(operator, np.array([3.0, 5.0]))
    assert source.asked == {op: len(grid_of(op)) for op in source.asked}
    assert len(source.asked) == 2


def test_prompts_beyond_a_piece_come_in_whole_pieces() -> None:
    grid = prompt_grid(1024)
    assert max(n for n in grid if n < 1024) < 1024 in grid
    assert all(n % 1024 == 0 for n in grid if n >= 1024)
    prefill = PrefillAttention(8, 1, 128, "bf16", False, 0, 1024, 512)
    at = aiconfigurator._at(prefill, 3072)
    assert (at["batch_size"], at["s"], at["prefix"]) == (3, 1024, 0)
    at = aiconfigurator._at(prefill, 256)
    assert (at["batch_size"], at["s"], at["prefix"]) == (1, 256, 384)


def test_the_digest_is_of_the_figures() -> None:
    a, b = Gemm(64, 64, "bf16"), AllReduce(64, 2)
    digest = Tables(Double()).sha256([a, b])
    assert Tables(Double()).sha256([b, a, b]) == digest
    assert Tables(Double(scale=1.01)).sha256([a, b]) != digest
    assert Tables(Double(identity={"system": "other"})).sha256([a, b]) != digest
    assert Tables(Double()).sha256([a]) != digest


def test_a_dense_layer_is_the_sum_of_its_operators() -> None:
    one, source = clock(LLAMA, StageShape.dense(2)), Double()
    total, communication = layer(one, 16, 1024)
    n = 1040
    gemms = [
        Gemm((32 + 2 * 4) * 128, 8192, "bf16"),
        Gemm(8192, 32 * 128, "bf16"),
        Gemm(28672, 8192, "bf16"),
        Gemm(8192, 14336, "bf16"),
    ]
    other = [Embedding(1, 1)] * 3  # norms, activation: whatever is no matrix
    reduce = 2 * source.seconds(AllReduce(8192, 2), n)
    work = sum(source.seconds(op, n) for op in [*gemms, *other])
    work += source.seconds(other[0], 16) + source.seconds(other[0], 1024)  # attention
    assert communication == pytest.approx(reduce * 1e9, abs=1.5)
    assert total == pytest.approx((work + reduce) * 1e9, abs=1.5)


def test_one_gpu_has_no_collectives() -> None:
    one = clock(LLAMA, StageShape.dense(1))
    assert layer(one, 16, 0)[1] == constant(one, ONLY)[1] == 0
    assert not kinds(one) & Counter(["all_reduce", "all_gather"])


def test_the_ends_of_a_pipeline_have_their_own_work() -> None:
    one = clock(LLAMA, StageShape.dense(4))
    first, middle, last, only = (
        constant(one, role) for role in (FIRST, MIDDLE, LAST, ONLY)
    )
    assert middle == (0, 0)
    assert first[0] > first[1] > 0
    assert last[0] > last[1] > 0
    assert only[0] == pytest.approx(first[0] + last[0], abs=2)


def test_experts_see_the_tokens_of_all_attention_ranks() -> None:
    shape = StageShape(tp=1, attn_dp=4, moe_tp=1, ep=4)
    source = Double()
    one = clock(MIXTRAL, shape, source)
    assert kinds(one)["experts"] == 1
    assert kinds(one)["exchange"] == 2
    total, communication = layer(one, 64, 0)
    exchange = next(op for op in source.asked if isinstance(op, Exchange))
    assert communication == pytest.approx(2e9 * source.seconds(exchange, 16), abs=1.5)
    experts = next(op for op in source.asked if isinstance(op, Experts))
    assert (experts.ep, experts.attn_dp, experts.moe_tp) == (4, 4, 1)
    assert total > communication


def test_latent_attention_is_one_block_for_prompts_and_one_for_sequences() -> None:
    source = Double()
    one = clock(DEEPSEEK, StageShape(tp=8, moe_tp=1, ep=8), source)
    assert one.refusal() is None
    blocks = {op.decode: op for op in source.asked if isinstance(op, LatentBlock)}
    assert {op.heads for op in blocks.values()} == {16}
    assert aiconfigurator._at(blocks[True], 32)["s"] == 1152
    assert aiconfigurator._at(blocks[False], 1024)["s"] == 1024
    both, sequences, prompts, none = (
        layer(one, m, x)[0] for m, x in ((8, 512), (8, 0), (0, 512), (0, 0))
    )
    assert both > max(sequences, prompts) >= min(sequences, prompts) > none


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (StageShape.dense(3), "1, 2, 4, 8 GPUs"),
        (StageShape.dense(16), "1, 2, 4, 8 GPUs"),
        (replace(StageShape.dense(8), islands=2), "across islands"),
        (StageShape(tp=2, moe_tp=1, ep=1, moe_dp=2), "copies of experts"),
        (StageShape(tp=2, moe_tp=1, ep=2, redundant=2), "copies of experts"),
    ],
)
def test_shapes_without_measurements_are_refused(shape: StageShape, why: str) -> None:
    assert why in (clock(LLAMA, shape).refusal() or "")
    assert clock(LLAMA, StageShape.dense(8)).refusal() is None


def test_what_the_tables_lack_is_the_reason() -> None:
    lacking = clock(LLAMA, StageShape.dense(2), Double(lacks=(AllReduce,)))
    assert lacking.refusal() == "no all_reduce"
    alone = clock(LLAMA, StageShape.dense(1), Double(lacks=(AllReduce,)))
    assert alone.refusal() is None
    narrow = clock(NARROW_LATENTS, StageShape.dense(2))
    assert "latent attention" in (narrow.refusal() or "")
    small = clock(LLAMA, StageShape.dense(8), Double(largest_group=4))
    assert "1, 2, 4 GPUs" in (small.refusal() or "")


@pytest.fixture
def instance(tmp_path: Any) -> Instance:
    path = tmp_path / "instance.yaml"
    path.write_text(NODE)
    return load(path)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Double:
    """The package's place is taken by a double."""
    found = Double()
    monkeypatch.setattr(aiconfigurator, "installed", lambda: True)
    # a new function each time: tables are kept per source
    monkeypatch.setattr(aiconfigurator, "measured_system", lambda gpu, engine: found)
    return found


def test_a_solve_rests_on_the_tables(instance: Instance, source: Double) -> None:
    found = solve(instance)
    assert found.status == "OPTIMAL"
    versions = found.result.versions
    assert versions["latencies"] == "silicon"
    assert versions["latencies H100-SXM system"] == "double"
    assert len(versions["latencies H100-SXM sha256"]) == 64
    assert found.report is not None
    notes = {row.rule for row in found.report.rows if row.note == "measured-backend"}
    assert notes == {"decode_time", "prefill_time"}
    assert found.table("communication")
    assert found.table("time")


def test_slower_tables_make_slower_plans(instance: Instance, source: Double) -> None:
    fast = solve(instance).result.objectives[0].value
    latencies._tables.cache_clear()
    source.scale = 2.0
    slow = solve(instance).result.objectives[0].value
    assert fast is not None
    assert slow is not None
    assert slow < fast


def test_the_law_over_measured_times_is_still_checked(
    instance: Instance, source: Double
) -> None:
    found = solve(instance)
    assert found.plan is not None
    document = found.plan.document.model_dump(mode="json", by_alias=True)
    stage = document["pools"][0]["replicas"][0]["stages"][0]
    stage["decode_time_ns"] *= 2
    plan = type(found.plan.document).model_validate_json(
        __import__("json").dumps(document)
    )
    broken = {v.rule for v in check(instance, plan).violations}
    assert "decode_time" not in broken
    assert "tpot" in broken


def test_shapes_left_out_are_named(instance: Instance, source: Double) -> None:
    source.lacks = (AllReduce,)
    compiler = Compiler(instance)
    assert [unit.shape.tp for unit in compiler.units] == [1]
    left_out = compiler.grid_document()["shapes_without_times"]
    assert set(left_out.values()) == {"no all_reduce"}
    assert len(left_out) == 2


def test_nothing_measured_is_refused(instance: Instance, source: Double) -> None:
    source.lacks = (Gemm,)
    with pytest.raises(InvalidInstance, match=r"engine\.latencies.*no gemm"):
        solve(instance)


def test_the_extra_may_be_missing(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiconfigurator, "installed", lambda: False)
    with pytest.raises(InvalidInstance, match=r"shardwright\[silicon\]"):
        solve(instance)
    assert solve(override(instance, latencies="analytic")).status == "OPTIMAL"


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("limits", "communication_share", 0.3),
        ("workload", "expert_loads", {"tokens": ((1.0, 1.0),)}),
    ],
)
def test_what_cannot_be_measured_is_refused(
    instance: Instance, source: Double, part: str, field: str, value: Any
) -> None:
    changed = getattr(instance, part).model_copy(update={field: value})
    asked = instance.model_copy(update={part: changed})
    with pytest.raises(InvalidInstance, match=field):
        latencies.latencies_of(asked, MIX)


def test_a_gpu_type_without_tables_is_refused() -> None:
    with pytest.raises(NotMeasured, match="MI300X"):
        aiconfigurator.measured_system("MI300X", "vllm")


def test_older_instances_keep_their_hash(instance: Instance) -> None:
    assert "latencies" not in Engine().model_dump()
    assert instance.engine.model_dump()["latencies"] == "silicon"
    analytic = override(instance, latencies="analytic")
    assert instance_sha256(analytic) != instance_sha256(instance)


def test_the_option_names_what_it_takes(instance: Instance) -> None:
    with pytest.raises(InvalidInstance, match="analytic, silicon"):
        override(instance, latencies="guess")


@pytest.mark.skipif(not aiconfigurator.installed(), reason="extra silicon is missing")
@pytest.mark.parametrize("tp", [1, 4])
def test_iterations_are_those_of_the_package(tp: int) -> None:
    """Its whole model against our sum of operators: one law of an iteration."""
    name = "meta-llama/Meta-Llama-3.1-70B"
    with aiconfigurator.quiet():
        from aiconfigurator_core.sdk import EngineHandle

        whole = EngineHandle.compile(name, "h100_sxm", "vllm", tp_size=tp, pp_size=1)
    text = WORKLOAD.replace("1024", "2048")
    mix = RequestMix.of(Workload.model_validate_json(text))
    spec, shape = model(name), StageShape.dense(tp)
    tables = Tables(aiconfigurator.measured_system(gpu("H100-SXM").name, "vllm"))
    one = SiliconClock(spec, Precision(), mix, shape, tables)
    rank = RankLayer.of(spec, spec.layer_kinds[0], shape, Precision())
    for m, x in ((1, 0), (32, 0), (123, 0), (0, 2048), (55, 2048)):
        on = Load.lone_chunk(np.array([float(m)]), np.array([float(x)]), 1)
        layers = len(spec.layers) * int(one.layer(rank, on)[0][0])
        found = (layers + int(one.stage_constant(ONLY, on)[0][0])) / 1e6
        with aiconfigurator.quiet():
            if not x:
                wanted = whole.decode_step_latency(m, 2048, 256)
            elif not m:
                wanted = whole.predict_prefill_latency(1, x)
            else:
                wanted = whole.mixed_step_latency(x, m, 2048, 256)
        assert found == pytest.approx(wanted, rel=0.01)
