"""Fits of operator curves: what they recover, what they never see, what they refuse."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardwright.cost.operator_forms import EVALUATE, Machine
from shardwright.cost.operator_shapes import COLUMNS, FAMILY_KEYS, derive
from shardwright.cost.operators import peaks_of
from shardwright.ingest import catalogue
from shardwright.ingest.operators import load_operators
from shardwright.planning import calibrate_measure
from shardwright.planning.calibrate import (
    calibrate_file,
    file_yaml,
    fit_table,
    form_of,
)
from shardwright.planning.calibrate_fit import Fitted, fit_curve, fold_of
from shardwright.planning.calibrate_routing import busiest_rank
from shardwright.planning.calibrate_table import Key, Table, parse_tables, read_tables
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.operators import FORMS, Parameter

GPU = "H100-SXM"
TRUE = {
    "floor_us": 4.0,
    "mfu": 0.7,
    "hbm_efficiency": 0.8,
    "norm": 3.0,
    "us_per_1000_k": 0.2,
}


def gemm_table(noise: float = 0.0, seed: int = 7) -> Table:
    """Times of known parameters on a grid, with lognormal noise."""
    sizes = (512, 1024, 2048, 4096, 8192)
    grid = [(m, n, k) for n in sizes for k in sizes for m in (1, 16, 256, 4096)]
    columns = {
        name: np.array([row[i] for row in grid], dtype=float)
        for i, name in enumerate(("m", "n", "k"))
    }
    key = Key("gemm", "", "bf16")
    machine = Machine.of(peaks_of(catalogue.gpu(GPU)), "bf16")
    times = EVALUATE["gemm"](TRUE, derive("gemm", "", "bf16", columns), machine)
    rough = np.exp(noise * np.random.default_rng(seed).standard_normal(times.size))
    return Table(key, columns, times * rough, tuple(range(2, times.size + 2)))


def test_known_parameters_are_recovered() -> None:
    fit = fit_table(gemm_table(), peaks_of(catalogue.gpu(GPU)))
    assert fit.curve.fit_median_ape_percent < 0.1
    assert fit.curve.held_out.median_ape_percent < 0.1
    for name, value in TRUE.items():
        assert fit.curve.parameters[name] == pytest.approx(value, rel=0.02)


def test_outliers_do_not_bend_the_curve() -> None:
    table = gemm_table(noise=0.03)
    spoilt = table.measured_us.copy()
    spoilt[::10] *= 5
    fit = fit_table(
        Table(table.key, table.columns, spoilt, table.lines),
        peaks_of(catalogue.gpu(GPU)),
    )
    assert fit.curve.parameters["mfu"] == pytest.approx(0.7, rel=0.03)
    assert fit.curve.parameters["hbm_efficiency"] == pytest.approx(0.8, rel=0.06)
    assert fit.curve.held_out.median_ape_percent < 4


def test_no_fold_predicts_a_family_that_its_fit_saw() -> None:
    families = np.repeat(np.arange(11), 4)
    calls: list[set[int]] = []

    def model(values: Any, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        calls.append(set(families[rows].tolist()))
        return np.full(rows.size, values["time"])

    level = (Parameter("time", 0.1, 100, 1, "us"),)
    fitted = fit_curve(level, model, np.linspace(1, 9, 44), families)
    assert isinstance(fitted, Fitted) and fitted.folds == 5 and fitted.families == 11
    partial = [seen for seen in calls if len(seen) < 11]
    # each fold is predicted once, after every evaluation of its own fit
    predicted = [c for c in partial if len(c) <= 3]
    assert len(predicted) == 5
    assert set().union(*predicted) == set(range(11))
    fits = [frozenset(c) for c in partial if len(c) > 3]
    assert {frozenset(range(11)) - c for c in fits} == {frozenset(c) for c in predicted}


def test_folds_keep_families_whole_and_are_the_same_every_time() -> None:
    families = np.random.default_rng(3).integers(0, 23, 500)
    folds = fold_of(families)
    assert np.array_equal(folds, fold_of(families))
    assert all(np.unique(folds[families == f]).size == 1 for f in range(23))
    sizes = [np.unique(families[folds == fold]).size for fold in range(5)]
    assert sorted(sizes) == [4, 4, 5, 5, 5]


def test_parameters_stay_within_their_bounds() -> None:
    table = gemm_table()
    fast = Table(table.key, table.columns, table.measured_us / 3, table.lines)
    fit = fit_table(fast, peaks_of(catalogue.gpu(GPU)))
    for parameter in FORMS["gemm"]:
        value = fit.curve.parameters[parameter.name]
        assert parameter.low <= value <= parameter.high
    assert fit.curve.parameters["mfu"] == 0.85


@pytest.mark.parametrize(
    ("key", "form"),
    [
        (Key("gemm", "", "fp8"), "gemm_quantizing"),
        (Key("gemm", "", "fp8_block"), "gemm_eager"),
        (Key("all_reduce", "nccl", "bf16"), "pipelined"),
        (Key("all_reduce", "mine", "bf16"), "one_or_two_shot"),
        (Key("expert_combine", "deepep_nodes", "bf16"), "exchange_by_sm_nodes"),
        (Key("expert_dispatch", "mine_ll", "fp8"), "exchange_low_latency"),
        (Key("expert_dispatch", "mine", "fp8"), "exchange"),
        (Key("moe", "", "bf16"), "moe"),
    ],
)
def test_each_implementation_has_its_form(key: Key, form: str) -> None:
    assert form_of(key) == form


def test_every_family_has_columns_and_a_key_among_them() -> None:
    assert set(COLUMNS) == set(FAMILY_KEYS)
    for family, names in FAMILY_KEYS.items():
        assert set(names) <= set(COLUMNS[family])


# routing


def balanced_by_hand(n: int, experts: int, top_k: int, ep: int) -> tuple[int, int]:
    """Woken experts and pairs of the first rank, token by token."""
    stride = -(-experts // top_k)
    hits = [
        ((token if n >= stride else token * stride // n) + j * stride) % experts
        for token in range(n)
        for j in range(top_k)
    ]
    mine = [expert for expert in hits if expert < experts // ep]
    return len(set(mine)), len(mine)


@pytest.mark.parametrize("tokens", [1, 3, 16, 31, 32, 64])
@pytest.mark.parametrize("ep", [1, 4, 64])
def test_balanced_routing_is_dealt_round(tokens: int, ep: int) -> None:
    assert busiest_rank("balanced", tokens, 64, 8, ep) == balanced_by_hand(
        tokens, 64, 8, ep
    )


@pytest.mark.parametrize("tokens", [1, 8, 64, 4096])
def test_power_law_keeps_all_pairs_on_one_rank_and_skews_several(tokens: int) -> None:
    woken, pairs = busiest_rank("power_law_1.2", tokens, 128, 8, 1)
    assert pairs == pytest.approx(tokens * 8, rel=0.1)
    assert 1 <= woken <= min(128, tokens * 8)
    assert busiest_rank("power_law_1.2", tokens, 128, 8, 16)[1] >= tokens * 8 / 16


def test_uniform_routing_is_the_closed_form() -> None:
    woken, pairs = busiest_rank("uniform", 100, 64, 4, 8)
    assert woken == pytest.approx(8 * (1 - (15 / 16) ** 100))
    assert pairs == 50


# tables

HEADER = (
    "op,dtype,variant,m,n,k,heads,kv_heads,sequences,context,bytes,ranks,latency_us"
)


def row(**fields: object) -> str:
    """One line of a file with HEADER."""
    return ",".join(str(fields.get(name, "")) for name in HEADER.split(","))


GOOD = {"op": "gemm", "dtype": "bf16", "m": 1, "n": 8, "k": 8, "latency_us": 3}


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"op": "gem"}, "row 3, op"),
        ({"dtype": "fp7"}, "row 3, dtype"),
        ({"m": ""}, "row 3, m"),
        ({"m": "many"}, "row 3, m"),
        ({"n": 0}, "row 3, n"),
        ({"k": "inf"}, "row 3, k"),
        ({"k": 2.5}, "row 3, k"),
        ({"latency_us": -1}, "row 3, latency_us"),
        ({"latency_us": "nan"}, "row 3, latency_us"),
        ({"op": "all_reduce", "bytes": 8, "ranks": 1}, "row 3, ranks"),
        ({"op": "decode_attention", "heads": 4, "kv_heads": 8, "sequences": 1,
          "context": 9}, "row 3, kv_heads"),
    ],
)  # fmt: skip
def test_a_bad_row_is_refused_by_row_and_field(
    changed: dict[str, object], path: str
) -> None:
    text = "\n".join([HEADER, row(**GOOD), row(**(GOOD | changed))])
    with pytest.raises(InvalidInstance) as refused:
        parse_tables(text, "x.csv")
    assert [error.path for error in refused.value.errors] == [path]
    assert str(refused.value).startswith("x.csv is refused")


MOE = "op,dtype,tokens,hidden,intermediate,top_k,experts,ep,routing,latency_us\n"


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("moe,bf16,1.5,64,64,2,8,1,,9", "row 2, tokens"),
        ("moe,bf16,1,64,64,9,8,1,,9", "row 2, top_k"),
        ("moe,bf16,1,64,64,2,8,3,,9", "row 2, ep"),
        ("moe,bf16,1,64,64,2,8,1,zipf,9", "row 2, routing"),
        ("moe,bf16,1,64,64,2,8,1,power_law_1,9", "row 2, routing"),
        ("moe,bf16,1,64,64,2,8", "row 2"),
    ],
)
def test_a_bad_moe_row_is_refused(line: str, path: str) -> None:
    with pytest.raises(InvalidInstance) as refused:
        parse_tables(MOE + line, "x.csv")
    assert refused.value.errors[0].path == path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", "header.op"),
        ("op,dtype,m,n,k\n", "header.latency_us"),
        ("op,dtype,latency_us,speed\n", "header.speed"),
        ("op,dtype,latency_us,m,m\n", "header.m"),
        ("op,dtype,latency_us\n\n", "rows"),
    ],
)
def test_a_bad_file_is_refused(text: str, path: str) -> None:
    with pytest.raises(InvalidInstance) as refused:
        parse_tables(text, "x.csv")
    assert refused.value.errors[0].path == path


def test_rows_of_other_gpus_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    text = "gpu,op,dtype,m,n,k,latency_us\nA,gemm,bf16,1,2,3,4\nB,gemm,fp16,1,2,3,5\n"
    path.write_bytes(gzip.compress(text.encode()))
    (table,) = read_tables(path, "B")
    assert table.measured_us.tolist() == [5] and table.lines == (3,)
    assert table.key == Key("gemm", "", "bf16")


CUT = gzip.compress(b"op,dtype" * 99, mtime=0)[:-9]
"""Without the time of day: workers of one run collect the same tests."""


@pytest.mark.parametrize("data", [b"no gzip", CUT], ids=["none", "cut"])
def test_a_broken_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(data)
    with pytest.raises(InvalidInstance) as refused:
        read_tables(path)
    assert refused.value.errors[0].path == "(file)"


VARIANTS = {
    "all_reduce": ["nccl", "vllm"],
    "mla_prefill": ["kv_fp8"],
    "mla_decode": ["kv_bf16"],
    "expert_dispatch": ["deepep", "deepep_nodes", "deepep_ll", "deepep_ll_nodes", "x"],
}


@pytest.mark.parametrize(
    ("family", "variant", "dtype"),
    [
        (family, variant, dtype)
        for family in COLUMNS
        for variant in VARIANTS.get(family, [""])
        for dtype in (("bf16", "fp8", "fp8_block") if family == "gemm" else ("bf16",))
    ],
)
def test_any_times_give_bounded_parameters_and_finite_errors(
    family: str, variant: str, dtype: str
) -> None:
    random = np.random.default_rng(11)
    names = [name for name in COLUMNS[family] if name not in ("tp", "ep", "head_dim")]  # type: ignore[index]
    lines = [",".join(["op", "dtype", "variant", *names, "latency_us"])]
    for _ in range(60):
        sizes = {name: 2 ** random.integers(1, 14) for name in names}
        for low, high in (("kv_heads", "heads"), ("top_k", "experts")):
            if low in sizes:
                sizes[high] = min(max(sizes[low], sizes[high]), 4096)
                sizes[low] = min(sizes[low], sizes[high])
        time = 10 ** random.uniform(-3, 9)
        cells = [family, dtype, variant, *sizes.values(), f"{time:g}"]
        lines.append(",".join(map(str, cells)))
    (table,) = parse_tables("\n".join(lines), "random")
    fit = fit_table(table, peaks_of(catalogue.gpu(GPU)))
    assert np.all(np.isfinite(fit.fitted.held_out_percent))
    assert set(fit.curve.parameters) == {p.name for p in FORMS[fit.curve.form]}


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        ([(m, 64, 64) for m in range(1, 15)], "rows"),
        ([(m, 64, 64) for m in range(1, 30)], "n+k"),
    ],
)
def test_too_little_is_refused(
    tmp_path: Path, rows: list[tuple[int, int, int]], field: str
) -> None:
    lines = [f"gemm,bf16,{m},{n},{k},5" for m, n, k in rows]
    path = tmp_path / "x.csv"
    path.write_text("\n".join(["op,dtype,m,n,k,latency_us", *lines]))
    with pytest.raises(InvalidInstance) as refused:
        calibrate_file(path, catalogue.gpu(GPU))
    (error,) = refused.value.errors
    assert error.path.endswith(field) and "gemm bf16 (rows 2 to" in error.path


def test_a_file_survives_writing_and_reading(tmp_path: Path) -> None:
    table = gemm_table(noise=0.05)
    columns = zip(*table.columns.values(), table.measured_us, strict=True)
    lines = [f"gemm,bf16,{m:g},{n:g},{k:g},{t:.6g}" for m, n, k, t in columns]
    path, out = tmp_path / "x.csv", tmp_path / "x.yaml"
    path.write_text("\n".join(["op,dtype,m,n,k,latency_us", *lines]))
    made = calibrate_file(path, catalogue.gpu(GPU))
    out.write_text(file_yaml(made))
    assert load_operators(out) == made
    assert made.confidence == "medium" and made.source == "measurements in x.csv"


# measuring


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[calibrate_measure.Shape]]:
    """A machine with one GPU whose operators take 7 us; the shapes that it ran."""
    ran: list[calibrate_measure.Shape] = []

    class Cuda:
        OutOfMemoryError = MemoryError

        def get_device_name(self, _: int) -> str:
            return "a double"

        def device_count(self) -> int:
            return 1

    class Torch:
        cuda = Cuda()

    def runnable(_: Any, shape: calibrate_measure.Shape) -> Any:
        ran.append(shape)

    monkeypatch.setattr(calibrate_measure, "_torch", Torch)
    monkeypatch.setattr(calibrate_measure, "_runnable", runnable)
    monkeypatch.setattr(calibrate_measure, "_time_us", lambda *_: 7.0)
    yield ran


def test_what_is_measured_can_be_fitted(
    tmp_path: Path, timed: list[calibrate_measure.Shape]
) -> None:
    said: list[str] = []
    out = tmp_path / "times.csv"
    rows = calibrate_measure.measure(out, said.append)
    assert rows == len(timed) > 200 and "a double" in said[0]
    made = calibrate_file(out, catalogue.gpu(GPU))
    assert {curve.family for curve in made.curves} == {
        "gemm",
        "prefill_attention",
        "decode_attention",
    }


def test_without_pytorch_measuring_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(calibrate_measure.importlib, "import_module", absent)
    with pytest.raises(InvalidInstance, match="--measure: found no PyTorch"):
        calibrate_measure.measure(tmp_path / "x.csv", lambda _: None)
    assert not list(tmp_path.iterdir())


def test_shapes_beyond_memory_are_left_out_and_said(
    tmp_path: Path,
    timed: list[calibrate_measure.Shape],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def small(_: Any, shape: calibrate_measure.Shape) -> None:
        if shape.columns.get("m", 0) > 4096:
            raise MemoryError

    monkeypatch.setattr(calibrate_measure, "_runnable", small)
    said: list[str] = []
    rows = calibrate_measure.measure(tmp_path / "x.csv", said.append)
    left_out = [line for line in said if line.startswith("left out")]
    assert len(left_out) == len(calibrate_measure.MATRICES)
    assert rows + len(left_out) == len(list(calibrate_measure.single_gpu_shapes()))


def test_an_old_pytorch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Torch:
        __version__ = "2.4.1+cu121"

        class cuda:
            @staticmethod
            def is_available() -> bool:
                return True

    monkeypatch.setattr(calibrate_measure.importlib, "import_module", lambda _: Torch)
    with pytest.raises(InvalidInstance, match=r"PyTorch 2\.4\.1"):
        calibrate_measure.measure(Path("x.csv"), lambda _: None)


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInstance, match="--output"):
        calibrate_measure.write_whole(tmp_path / "no" / "x.yaml", "text")
