"""From a plan to its laws, its figures and its table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.plan.fleets import view

from shardwright.plan.anatomy import Anatomy, Load
from shardwright.plan.view import PlanView
from shardwright.problem import stage_roles
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.workload import Arrivals, SloTarget
from shardwright.simulate.replica import fleet_of, machine_of, stage_ns, station_of
from shardwright.simulate.requests import read_trace
from shardwright.simulate.scenario import scenario
from shardwright.simulate.study import Study, study
from shardwright.simulate.text import study_text

TRACES = Path(__file__).parents[2] / "instances" / "traces"


@pytest.fixture(scope="module")
def seen() -> PlanView:
    """A checked plan of replicas with several stages."""
    return view("seed")


def small(seen: PlanView, **asked: Any) -> Study:
    """A short study."""
    options = {"requests": 120, "seeds": 1, "rate_per_s": 0.5, **asked}
    return study(seen.instance, seen.document, **options)


def test_the_plane_goes_through_the_cost_models_times(seen: PlanView) -> None:
    anatomy = Anatomy(seen.instance, seen.document)
    for replica in seen.document.replicas():
        machine, point = machine_of(anatomy, replica), replica.operating_point
        high = point.micro_batch_sequences
        roles = stage_roles(len(replica.stages))
        chunk = point.prefill_chunk_tokens
        for stage, role, law in zip(replica.stages, roles, machine.stages, strict=True):
            full = law.alpha_s + law.kappa_s * high + law.beta_s * chunk
            at_full = stage_ns(anatomy, stage, role, Load(high, chunk))
            assert full * 1e9 == pytest.approx(at_full)
            # convex times: the plane is never below them in between
            for tokens in (chunk // 4, chunk // 2):
                plane = law.alpha_s + law.kappa_s * high + law.beta_s * tokens
                true = stage_ns(anatomy, stage, role, Load(high, tokens))
                assert plane * 1e9 >= true * (1 - 1e-9)


def test_the_station_is_the_machine_without_its_order(seen: PlanView) -> None:
    machine = fleet_of(seen.instance, seen.document).groups[0].machines[0]
    station = station_of(machine)
    parts = [*machine.stages, *machine.hops]
    assert station.whole.alpha_s == pytest.approx(sum(p.alpha_s for p in parts))
    assert station.whole.beta_s == pytest.approx(sum(p.beta_s for p in parts))
    assert station.slots == machine.slots


def test_shares_are_those_of_the_claimed_rates(seen: PlanView) -> None:
    fleet = fleet_of(seen.instance, seen.document)
    rates = [r.latency.rate_mtok_per_s for r in seen.document.replicas()]
    assert fleet.shares[0] == pytest.approx([r / sum(rates) for r in rates])


def test_light_load_is_predicted_well(seen: PlanView) -> None:
    found = small(seen, requests=500, seeds=2, rate_per_s=1.0)
    for figure in found.figures:
        if figure.share in ("mean", 0.5):
            assert figure.predicted_s is not None
            assert figure.simulated is not None
            assert figure.predicted_s == pytest.approx(
                figure.simulated.value_s, rel=0.08
            ), figure


def test_targets_are_judged_by_the_simulation(seen: PlanView) -> None:
    targets = (
        SloTarget(metric="ttft", percentile=99, limit_ms=1e6),
        SloTarget(metric="tpot", limit_ms=0.001),
        SloTarget(metric="prefill", limit_ms=1e6),
    )
    instance = seen.instance.model_copy(update={"slo": targets})
    found = study(instance, seen.document, requests=100, seeds=2, rate_per_s=0.2)
    assert [t.verdict for t in found.targets] == ["holds", "missed", "holds"]
    assert found.missed
    text = study_text(found)
    assert text.startswith("MISSED: 1 of 3 targets")
    assert max(map(len, text.splitlines())) <= 100
    assert json.loads(json.dumps(found.as_dict()))["targets"][1]["verdict"] == "missed"


def test_the_same_seed_gives_the_same_study(seen: PlanView) -> None:
    assert small(seen).as_dict() == small(seen).as_dict()
    assert small(seen, seed=5).as_dict() != small(seen).as_dict()


def test_bursts_have_no_closed_form(seen: PlanView) -> None:
    found = small(seen, arrivals="burst")
    assert all(figure.predicted_s is None for figure in found.figures)
    assert "all requests at once" in study_text(found)


@pytest.mark.parametrize("name", ["azure-2023-conversation", "mooncake-conversation"])
def test_shipped_traces_can_be_replayed(seen: PlanView, name: str) -> None:
    path = TRACES / f"{name}.csv"
    times, inputs, _ = read_trace(path)
    assert len(times) == 3000
    assert np.all(np.diff(times) >= 0)
    assert inputs.min() >= 1
    found = small(seen, arrivals=str(path), rate_per_s=0.3)
    assert found.scenario.rate_per_s == 0.3
    drawn = found.scenario.draw(7000, np.random.default_rng(0))
    span = drawn.arrival_s[-1] - drawn.arrival_s[0]
    assert len(drawn) / span == pytest.approx(0.3, rel=0.2)
    assert np.all(np.diff(drawn.arrival_s) >= 0)
    most = seen.instance.workload.max_context_tokens
    assert (drawn.context + drawn.output).max() <= most


def test_a_workload_says_how_requests_come(seen: PlanView) -> None:
    bursty = Arrivals(law="gamma", ca2=4.0)
    workload = seen.instance.workload.model_copy(update={"arrivals": bursty})
    assert scenario(workload, None, None, 2.0).ca2 == 4.0
    assert scenario(workload, 1.0, "poisson", 2.0).ca2 == 1.0
    with pytest.raises(ValueError, match="poisson law has ca2 1"):
        Arrivals(law="poisson", ca2=2.0)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "line 1"),
        ("a,b\n1,2\n", "line 1"),
        ("arrival_s,input_tokens,output_tokens\n", "line 2"),
        ("# made up\narrival_s,input_tokens,output_tokens\n0,5,1\n1,0,2\n", "line 4"),
        ("arrival_s,input_tokens,output_tokens\nnan,5,1\n", "line 2"),
        ("arrival_s,input_tokens,output_tokens\n0,5\n", "line 2"),
    ],
)
def test_bad_traces_are_refused_by_line(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInstance) as caught:
        read_trace(path)
    assert caught.value.errors[0].path == field


@pytest.mark.parametrize("arrivals", ["gamma:0", "gamma:x", "sometimes", "no.csv"])
def test_unknown_arrivals_are_refused(seen: PlanView, arrivals: str) -> None:
    with pytest.raises(InvalidInstance):
        small(seen, arrivals=arrivals)


Call = Callable[..., Any]


@pytest.fixture
def files(seen: PlanView, tmp_path: Path) -> tuple[str, str]:
    """The instance and the plan as files."""
    from shardwright.ingest.load import canonical_json

    instance, plan = tmp_path / "instance.json", tmp_path / "plan.json"
    instance.write_text(canonical_json(seen.instance), encoding="utf-8")
    plan.write_text(seen.document.model_dump_json(by_alias=True), encoding="utf-8")
    return str(instance), str(plan)


def run(monkeypatch: pytest.MonkeyPatch, seen: PlanView, *arguments: str) -> Any:
    """The command line in this process, the loader replaced."""
    from typer.testing import CliRunner

    from shardwright.cli.app import app

    monkeypatch.setattr("shardwright.ingest.load", lambda path: seen.instance)
    return CliRunner().invoke(app, ["simulate", *arguments])


def test_the_command_prints_and_says_by_its_code(
    monkeypatch: pytest.MonkeyPatch, seen: PlanView, files: tuple[str, str]
) -> None:
    short = [*files, "--requests", "60", "--seeds", "2", "--rate", "0.2"]
    done = run(monkeypatch, seen, *short, "--json")
    assert done.exit_code in (0, 5)
    report = json.loads(done.stdout)
    assert (done.exit_code == 5) == any(
        target["verdict"] == "missed" for target in report["targets"]
    )
    assert len(report["latencies"]) == 20
    shown = run(monkeypatch, seen, *short)
    assert "TTFT P99" in shown.stdout


@pytest.mark.parametrize(
    "wrong", [["--rate", "nan"], ["--rate", "0"], ["--routing", "best"]]
)
def test_bad_options_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    seen: PlanView,
    files: tuple[str, str],
    wrong: list[str],
) -> None:
    assert run(monkeypatch, seen, *files, *wrong).exit_code == 2
