"""Metrics against the checker's own figures and against hand-made arithmetic."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.plan.fleets import CASES, view

from shardwright.check import check
from shardwright.plan import PlanView
from shardwright.plan.anatomy import Anatomy
from shardwright.plan.balance import bubble, flush_bubble, imbalance
from shardwright.plan.breakdown import decode_breakdown, prefill_breakdown
from shardwright.plan.communication import exchanges, pass_totals
from shardwright.plan.kv import kv_room
from shardwright.plan.strategies import even_split, strategies
from shardwright.schema.plan import Replica


def replicas(name: str) -> Iterator[tuple[Anatomy, Replica]]:
    seen = view(name)
    for replica in seen.document.replicas():
        yield seen.anatomy, replica


@pytest.mark.parametrize("name", CASES)
def test_figures_agree_with_the_checker(name: str) -> None:
    seen = view(name)
    own = check(seen.instance, seen.document).figures
    pairs = zip(seen.metrics["replicas"], own.replicas, strict=True)
    for mine, theirs in pairs:
        assert mine["memory_imbalance"] == pytest.approx(
            float(theirs.memory_imbalance()), rel=1e-12
        )
        assert mine["compute_imbalance"] == pytest.approx(
            float(theirs.compute_imbalance()), rel=1e-9
        )
        assert mine["communication_share"] == pytest.approx(
            float(theirs.communication_share()), rel=1e-4
        )
        assert mine["e2e_ms"] == theirs.law.e2e_ns / 1e6
    total = seen.metrics["total"]
    assert total["gpus_used"] == own.gpus_used
    assert total["gpus_available"] == own.gpus_available
    assert total["output_tokens_per_s"] == own.rate_mtok_per_s() / 1000


@pytest.mark.parametrize("name", CASES)
def test_metrics_are_json(name: str) -> None:
    seen = view(name)
    text = json.dumps(seen.metrics, allow_nan=False)
    assert json.loads(text) == seen.metrics


@pytest.mark.parametrize("name", CASES)
def test_communication_is_what_the_problem_counts(name: str) -> None:
    one, problem, fleet = CASES[name]()
    from shardwright.plan import decode, settle

    anatomy = Anatomy(one, decode(one, problem, fleet, ""))
    settled = settle(problem, fleet).replicas
    for replica, placed in zip(anatomy.plan.replicas(), settled, strict=True):
        figures = problem.figures(placed.design)
        assert anatomy.communication_ns(replica) == figures.comm_ns
        assert anatomy.loop_ns(replica) == figures.times.loop_ns


@pytest.mark.parametrize("name", CASES)
def test_rows_of_the_pattern_add_up_to_a_pass(name: str) -> None:
    for anatomy, replica in replicas(name):
        rows = exchanges(anatomy, replica)
        totals = pass_totals(anatomy, replica)
        # embedding and logits of one stage are rounded once in the law, here twice
        assert 0 <= sum(r.decode.total_ns for r in rows) - totals.decode_ns <= 1
        assert 0 <= sum(r.prefill.total_ns for r in rows) - totals.prefill_ns <= 1
        for row in rows:
            least = row.decode.count * row.decode.each_ns
            assert abs(row.decode.total_ns - least) <= row.decode.count


@pytest.mark.parametrize("name", CASES)
def test_parts_of_a_latency_add_up_and_none_is_negative(name: str) -> None:
    for anatomy, replica in replicas(name):
        decode = decode_breakdown(anatomy, replica)
        prefill = prefill_breakdown(anatomy, replica)
        assert decode.total_ns == replica.latency.tpot_ns
        assert prefill.total_ns == replica.latency.prefill_ns
        for parts in (decode, prefill):
            assert min(vars(parts).values()) >= 0


def test_imbalance_weighs_by_gpus() -> None:
    assert imbalance([30, 10], [1, 1]) == pytest.approx(0.5)
    assert imbalance([30, 10], [1, 3]) == 1
    assert imbalance([7, 7], [2, 4]) == 0
    assert imbalance([0, 0], [1, 1]) == 0


def test_bubble_of_the_seeds_plan() -> None:
    """The seed says 25%; flushing would cost 43%, steady decoding idles 3%."""
    ((_, replica),) = replicas("seed")
    assert float(flush_bubble(replica)) == pytest.approx(3 / 7)
    assert float(bubble(replica)) == pytest.approx(0.0261, abs=1e-4)


def test_kv_room_is_exact_at_its_edge() -> None:
    ((anatomy, replica),) = replicas("seed")
    room = kv_room(anatomy, replica)
    # 80 layers x 2 x 8 heads x 128 x 2 bytes: 327,680 where the seed says 1 KB
    assert room.bytes_per_token == 327_680
    assert room.tokens_capacity is not None
    tightest = max(replica.stages, key=lambda s: s.memory_bytes.total())
    spare = anatomy.usable_bytes(tightest) - tightest.memory_bytes.total()
    extra = room.tokens_capacity - room.tokens_reserved
    assert extra * room.bytes_per_token_gpu <= spare
    assert (extra + 1) * room.bytes_per_token_gpu > spare


def test_windowed_layers_do_not_count_per_token() -> None:
    ((anatomy, replica),) = replicas("windows")
    # 10 global layers x 2 x 16 heads x 128 x 2 bytes
    assert kv_room(anatomy, replica).bytes_per_token == 10 * 2 * 16 * 128 * 2


def test_strategies_say_what_the_seed_got_wrong() -> None:
    """Tensor parallel over 8 holds an eighth each; the seed calls it infeasible."""
    ((anatomy, replica),) = replicas("seed")
    found = {(s.tp, s.pp): s for s in strategies(anatomy, replica)}
    assert found[8, 1].fits
    assert found[8, 1].peak.weights < 18e9
    assert not found[1, 1].fits
    assert found[1, 1].largest_batch == 0
    own = max(stage.memory_bytes.total() for stage in replica.stages)
    assert found[2, 4].peak.total() == own
    assert all(s.fits == (s.largest_batch >= 64) for s in found.values())


@pytest.mark.parametrize(("layers", "stages"), [(80, 4), (61, 4), (7, 7), (5, 3)])
def test_even_split_covers_all_layers(layers: int, stages: int) -> None:
    split = even_split(layers, stages)
    assert [a for a, _ in split[1:]] == [b for _, b in split[:-1]]
    assert (split[0][0], split[-1][1]) == (0, layers)
    sizes = [b - a for a, b in split]
    assert max(sizes) - min(sizes) <= 1


def test_exchanges_of_experts_by_name_and_place() -> None:
    """Eight MoE layers after a dense one, on two nodes: counts and bytes by hand."""
    seen = view("experts")
    rows = exchanges(seen.anatomy, seen.document.replicas()[0])
    names = [(x.operation, x.what, x.decode.count) for x in rows]
    assert names == [
        ("all-to-all", "dispatch", 8),
        ("across islands", "dispatch", 8),
        ("all-to-all", "combine", 8),
        ("across islands", "combine", 8),
    ]
    tokens = 64 + 64 * 8  # 64 sequences with 8 prompt tokens each, over 16 ranks
    sent = tokens // 16 * 2048 * 2
    inside, across = rows[0].decode.bytes_each, rows[1].decode.bytes_each
    assert inside == sent * 4 * 15 // 16
    # a token of 4 experts meets 2 (1 - 1/16) islands, half of them the other one
    assert across == sent * 15 // 16
    assert rows[1].decode.total_ns == 0
    narrow = exchanges(seen.anatomy, seen.document.replicas()[1])
    first = [(x.operation, x.what, x.decode.count) for x in narrow if x.stage == 0]
    assert first == [
        ("all-reduce", "embedding", 1),
        ("all-reduce", "attention", 5),
        ("all-reduce", "dense FFN", 1),
        ("all-reduce", "experts", 4),
        ("hop", "to next stage", 1),
    ]


def test_a_token_lies_on_one_attention_rank() -> None:
    seen = view("experts")
    room = kv_room(seen.anatomy, seen.document.replicas()[0])
    # 9 layers x 4 KV heads x (128 + 128) x 2 bytes
    assert room.bytes_per_token == room.bytes_per_token_gpu == 18_432
    # four sequences of at most 2,304 tokens on each of 16 ranks, never below a context
    assert room.tokens_reserved == 16 * max(8192, seen.anatomy.memory.mix.kv_tokens(4))


def test_strategies_of_a_mixture_use_as_many_gpus() -> None:
    seen = view("experts")
    replica = seen.document.replicas()[0]
    found = strategies(seen.anatomy, replica)
    assert {s.shape.gpus * s.pp for s in found} == {16}
    own = max(stage.memory_bytes.total() for stage in replica.stages)
    mine = [s for s in found if (s.shape.ep, s.tp, s.pp) == (16, 1, 1)]
    assert [s.peak.total() for s in mine] == [own]


def test_unknown_prices_make_unknown_costs() -> None:
    seen: PlanView = view("mixed")
    priced, across = seen.metrics["replicas"]
    assert priced["cost_usd_per_hour"] == 15.0
    assert across["cost_usd_per_hour"] is None
    assert seen.metrics["total"]["cost_usd_per_million_output_tokens"] is None
