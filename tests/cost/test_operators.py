"""Operator curves: formulas by hand, shapes, inheritance, and the shipped files."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shardwright.cost.operator_forms import EVALUATE, Machine, smooth_max
from shardwright.cost.operators import (
    NoCurve,
    Operators,
    evaluate,
    inherited,
    operators_for,
    peaks_of,
    uniform_woken,
)
from shardwright.ingest import catalogue
from shardwright.ingest.operators import measured_operators
from shardwright.schema.operators import (
    FAMILY_FORMS,
    FORMS,
    HeldOut,
    OperatorCurve,
    OperatorFamily,
    OperatorForm,
    Peaks,
)

PEAKS = Peaks(
    dense_tflops={"bf16": 1000, "fp8": 2000},
    hbm_gbyte_per_s=3000,
    link_gbyte_per_s=400,
    network_gbyte_per_s=50,
)
HELD_OUT = HeldOut(
    by=("m",), families=5, folds=5, median_ape_percent=1, p90_ape_percent=2
)


def curve(
    family: OperatorFamily, form: OperatorForm, variant: str = "", **values: float
) -> OperatorCurve:
    """A curve with these parameters; the others are where a fit starts."""
    parameters = {p.name: p.start for p in FORMS[form]} | values
    return OperatorCurve(
        family=family,
        variant=variant,
        dtype="bf16",
        form=form,
        parameters=parameters,
        rows=1,
        fit_median_ape_percent=1,
        held_out=HELD_OUT,
        ranges={},
    )


def test_gemm_is_floor_serial_and_the_larger_of_compute_and_memory() -> None:
    made = curve("gemm", "gemm", floor_us=3, mfu=0.8, hbm_efficiency=0.9, norm=8,
                 us_per_1000_k=0.5)  # fmt: skip
    large = evaluate(made, PEAKS, m=8192, n=8192, k=8192)
    compute = 2 * 8192**3 / (1000e6 * 0.8)
    assert float(large) == pytest.approx(3 + 0.5 * 8.192 + compute, rel=1e-3)
    small = evaluate(made, PEAKS, m=1, n=8192, k=8192)
    memory = ((8192 * 8192 + 8192) * 2 + 2 * 8192) / (3000e3 * 0.9)
    assert float(small) == pytest.approx(3 + 0.5 * 8.192 + memory, rel=1e-3)


def test_decode_reads_the_cache_of_every_kv_head_once() -> None:
    made = curve("decode_attention", "decode_attention", floor_us=10, norm=8,
                 hbm_efficiency=0.5, ns_per_kv_head=20, grouped_us=2)  # fmt: skip
    time = evaluate(
        made, PEAKS, sequences=64, context=4096, heads=8, kv_heads=1, head_dim=128
    )
    read = 2 * 64 * 128 * 4096 * 2 / (3000e3 * 0.5) + 0.02 * 64
    assert float(time) == pytest.approx(12 + read)


def test_an_ungrouped_kernel_walks_its_context() -> None:
    made = curve("decode_attention", "decode_attention", floor_us=10, norm=8,
                 ungrouped_us_per_1000_positions=20)  # fmt: skip
    one = evaluate(made, PEAKS, sequences=1, context=8000, heads=4, kv_heads=4)
    assert float(one) == pytest.approx(10 + 160, rel=1e-3)


def test_moe_reads_woken_experts_and_computes_pairs() -> None:
    made = curve("moe", "moe", floor_us=30, hbm_efficiency=0.8, mfu=0.5, norm=8,
                 passes=2, narrow_columns=0)  # fmt: skip
    shapes = {"tokens": 16, "hidden": 4096, "intermediate": 1024, "top_k": 8,
              "experts": 64, "tp": 2, "woken": 40, "pairs": 128}  # fmt: skip
    read = 40 * 3 * 4096 * 512 * 2 / (3000e3 * 0.8)
    traffic = 16 * 8 * (4096 + 512) * 2 * 2 / 3000e3
    time = evaluate(made, PEAKS, **shapes)
    assert float(time) == pytest.approx(30 + read + traffic, rel=1e-4)


def test_all_reduce_takes_the_cheaper_protocol() -> None:
    made = curve("all_reduce", "one_or_two_shot", "vllm", floor_us=4, per_rank_us=0,
                 one_shot_efficiency=0.5, pipeline_us=100, link_efficiency=0.8,
                 rank_exponent=0)  # fmt: skip
    small, large = evaluate(made, PEAKS, bytes=[8192, 2**28], ranks=8)
    assert small == pytest.approx(4 + 7 * 8192 / (400e3 * 0.5))
    volume = 2 * 7 / 8 * 2**28 / (400e3 * 0.8)
    assert large == pytest.approx(4 + volume + math.sqrt(100 * volume))


def test_smooth_maximum_lies_between_maximum_and_sum() -> None:
    a, b = np.array([0.0, 1.0, 5.0, 1e9]), np.array([2.0, 1.0, 3.0, 1e-9])
    for norm in (1.0, 2.5, 8.0):
        between = smooth_max(a, b, norm)
        assert np.all(between >= np.maximum(a, b) * (1 - 1e-12))
        assert np.all(between <= (a + b) * (1 + 1e-12))


def test_every_form_has_an_evaluation_and_at_most_six_parameters() -> None:
    assert set(EVALUATE) == set(FORMS)
    assert {form for forms in FAMILY_FORMS.values() for form in forms} == set(FORMS)
    assert max(len(parameters) for parameters in FORMS.values()) <= 6
    for parameters in FORMS.values():
        assert all(p.low <= p.start <= p.high for p in parameters)


def test_uniform_routing_wakes_one_expert_first_and_all_at_last() -> None:
    woken = uniform_woken(np.array([1.0, 10.0, 1e6]), 2, 64)
    assert woken[0] == pytest.approx(2)
    assert 2 < woken[1] < 20
    assert woken[2] == pytest.approx(64)


def ops(name: str) -> Operators:
    """Curves of a GPU type of the catalogue."""
    return operators_for(catalogue.gpu(name))


@pytest.mark.parametrize("name", ["A100-80", "H100-SXM", "H200", "B200", "MI300X"])
def test_times_are_finite_positive_and_grow_with_work(name: str) -> None:
    curves = ops(name)
    sizes = 2.0 ** np.arange(0, 15)
    series = [
        curves.gemm_us(sizes, 4096, 4096),
        curves.decode_attention_us(8, sizes, 8, 1),
        curves.decode_attention_us(sizes, 4096, 8, 1),
        curves.prefill_attention_us(1, sizes, 8, 1),
        curves.moe_us(sizes, 4096, 1024, 8, woken=uniform_woken(sizes, 8, 128),
                      pairs=sizes * 8),
        curves.collective_us("all_reduce", sizes * 1024, 8, variant="vllm"),
        curves.collective_us("all_to_all", sizes * 1024, 8),
        curves.exchange_us("expert_dispatch", sizes, 7168, 8, 256, variant="deepep",
                           dtype="fp8"),
        curves.exchange_us("expert_combine", sizes, 7168, 8, 256, nodes=4,
                           variant="deepep_ll_nodes"),
    ]  # fmt: skip
    for times in series:
        assert times.shape == sizes.shape
        assert np.all(np.isfinite(times)) and np.all(times > 0)
        assert np.all(np.diff(times) >= 0)


def test_shapes_broadcast_and_one_rank_is_free() -> None:
    curves = ops("H200")
    grid = curves.gemm_us(np.arange(1, 4)[:, None], np.array([1024, 4096]), 4096)
    assert grid.shape == (3, 2)
    assert grid[1, 1] == curves.gemm_us(2, 4096, 4096)
    free, paid = curves.collective_us("all_reduce", 1e6, np.array([1, 2]))
    assert free == 0 < paid


def test_a_captured_gemm_has_no_host_floor() -> None:
    curves = ops("H200")
    assert curves.gemm_us(1, 1024, 1024, dtype="fp8_block") > 50
    assert curves.gemm_device_us(1, 1024, 1024, dtype="fp8_block") < 5


def test_formats_of_the_same_width_share_a_curve() -> None:
    curves = ops("H100-SXM")
    assert curves.gemm_us(64, 4096, 4096, dtype="fp16") == curves.gemm_us(
        64, 4096, 4096
    )
    assert curves.has("gemm", "int8") and not curves.has("gemm", "fp4")


def test_a_missing_curve_is_named() -> None:
    with pytest.raises(NoCurve, match=r"A100-80 has no curve for gemm .*fp8"):
        ops("A100-80").gemm_us(1, 1024, 1024, dtype="fp8")


def test_a_measured_type_keeps_its_own_curves() -> None:
    own = {f.gpu: f for f, _ in measured_operators()}
    assert set(own) == {"A100-80", "H100-SXM", "H200"}
    file = ops("H100-SXM").file
    assert file.confidence == "high"
    assert file.curves[: len(own["H100-SXM"].curves)] == own["H100-SXM"].curves


@pytest.mark.parametrize(
    ("name", "donor", "confidence"),
    [
        ("H800", "H100-SXM", "medium"),
        ("GH200-96", "H100-SXM", "medium"),
        ("A100-40", "A100-80", "medium"),
        ("B200", "H100-SXM", "low"),
        ("MI355X", "H100-SXM", "low"),
    ],
)
def test_inheritance_keeps_shares_and_takes_the_own_peaks(
    name: str, donor: str, confidence: str
) -> None:
    spec, made = catalogue.gpu(name), ops(name)
    assert made.file.confidence == confidence
    assert made.file.peaks == peaks_of(spec)
    first = made.curve("gemm")
    assert first.inherited_from == donor
    assert made.confidence("gemm") == confidence
    assert first.parameters == ops(donor).curve("gemm").parameters


def test_a_curve_from_elsewhere_is_trusted_less_than_its_file() -> None:
    made = ops("H200")
    assert made.confidence("gemm") == "high"
    assert made.confidence("expert_combine", variant="deepep_nodes") == "medium"


def test_a_gpu_without_bf16_computes_in_fp16() -> None:
    spec = catalogue.gpu("L4")
    old = spec.model_copy(update={"name": "old", "dense_tflops": {"fp16": 112.0}})
    made = Operators(inherited(old, measured_operators()))
    assert np.isfinite(made.gemm_us(64, 4096, 4096, dtype="fp16"))
    assert not made.has("gemm", "fp8")


def test_a_wider_memory_reads_faster_after_inheritance() -> None:
    spec = catalogue.gpu("H100-SXM")
    wide = spec.model_copy(update={"name": "wide", "hbm_gbyte_per_s": 6700.0})
    donors = [pair for pair in measured_operators() if pair[0].gpu == spec.name]
    made, own = Operators(inherited(wide, donors)), ops(spec.name)
    serial = own.curve("gemm").parameters["us_per_1000_k"] * 16.384
    read = own.gemm_device_us(1, 16384, 16384) - serial
    twice_as_fast = made.gemm_device_us(1, 16384, 16384) - serial
    assert twice_as_fast == pytest.approx(read / 2, rel=0.01)


def test_formats_that_a_gpu_lacks_are_not_inherited() -> None:
    dtypes = {(c.family, c.dtype) for c in ops("A100-40").file.curves}
    assert ("gemm", "fp8") not in dtypes and ("moe", "fp8_block") not in dtypes
    assert ("expert_dispatch", "fp8") in dtypes


def test_shipped_files_state_errors_source_and_licence() -> None:
    for file, _ in measured_operators():
        assert "aiconfigurator-core 0.12.0" in file.source
        assert file.licence == "Apache-2.0"
        assert file.peaks == peaks_of(catalogue.gpu(file.gpu))
        for made in file.curves:
            assert made.held_out.families >= 3 and made.rows >= 50
            assert made.held_out.p90_ape_percent >= made.held_out.median_ape_percent


def test_a_dtype_without_flops_still_moves_data() -> None:
    machine = Machine.of(PEAKS, "fp4")
    assert math.isnan(machine.flops_per_us)
    assert machine.value_bytes == 0.5625
