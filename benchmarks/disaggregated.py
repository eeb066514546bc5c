"""Experts on GPUs of their own against experts beside attention, each to its proof.

``python -m benchmarks.disaggregated --out benchmarks/results`` writes disaggregated.md
and .json. One program has both kinds of stages; either kind is solved alone, on the
same operating points. The page says how many plans passed the checker.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time

from tabulate import tabulate

from shardwright.check import check
from shardwright.cli.options import override
from shardwright.ingest import instance_sha256, load
from shardwright.ingest.load import load_bytes
from shardwright.outcome import goal_bounds, goal_values
from shardwright.plan import PlanView, decode
from shardwright.plan.disaggregated import stations
from shardwright.plan.tables.summary import plan_degrees
from shardwright.problem import Problem, compile_problem, with_units
from shardwright.schema.errors import UnsupportedRule
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan
from shardwright.schema.result import ObjectiveValue
from shardwright.search import solver
from shardwright.search.base import SearchLimits

TIME_LIMIT_S = 100.0
KINDS = {False: "colocated", True: "disaggregated"}

FORM = """
schema_version: "1.0"
name: {name}
model: {model}
cluster:
  gpu_types: {{gpu: {{catalogue: {gpu}}}}}
  nodes: [{{name: node, gpu: gpu, gpus: {gpus}}}]
workload:
  input_tokens: {{constant: {input_tokens}}}
  output_tokens: {{constant: {output_tokens}}}
  max_batch: {max_batch}
  max_context_tokens: {context}
slo: [{{metric: tpot, limit_ms: {tpot_ms}}}]
limits: {{memory_fraction: 90%}}
precision: {{weights: {weights}, kv_cache: bf16}}
engine: {{name: generic, rules: {{equal_shape_per_stage: true}}}}
objective: [throughput, gpus]
"""


@dataclass(frozen=True)
class Case:
    """A model on one island, most throughput under a TPOT."""

    model: str
    gpu: str
    input_tokens: int
    output_tokens: int
    tpot_ms: float
    weights: str = "fp8"
    gpus: int = 8
    max_batch: int = 1024

    @property
    def name(self) -> str:
        """Model, hardware, lengths and limit in short."""
        lengths = f"{self.input_tokens}/{self.output_tokens}"
        short = self.model.split("/")[-1]
        return f"{short} on {self.gpus} {self.gpu}, {lengths}, {self.tpot_ms:g} ms"

    def instance(self) -> Instance:
        """The case as an instance."""
        context = 2 * (self.input_tokens + self.output_tokens)
        text = FORM.format(name=f'"{self.name}"', context=context, **asdict(self))
        return load_bytes(text.encode(), self.name, Path())


CASES = (
    Case("Qwen/Qwen3-235B-A22B-FP8", "H200", 4096, 512, 80),
    Case("Qwen/Qwen3-235B-A22B-FP8", "H200", 4096, 512, 50),
    Case("Qwen/Qwen3-235B-A22B-FP8", "H200", 4096, 512, 200),
    Case("Qwen/Qwen3-235B-A22B-FP8", "H200", 1024, 1024, 80, max_batch=4096),
    Case("Qwen/Qwen3-30B-A3B", "L40S", 4096, 256, 200, "bf16"),
    Case("Qwen/Qwen3-30B-A3B", "H100-PCIe", 4096, 256, 200, "bf16"),
    Case("deepseek-ai/DeepSeek-V3", "H200", 1024, 1024, 200, max_batch=4096),
    Case("deepseek-ai/DeepSeek-V3", "B200", 4096, 512, 200),
    Case("MiniMaxAI/MiniMax-M2.5", "H200", 8192, 512, 80),
    Case("openai/gpt-oss-120b", "H100-SXM", 4096, 512, 50, "bf16"),
    Case("mistralai/Mixtral-8x22B-v0.1", "A100-PCIe-80", 1024, 1024, 200, "bf16"),
)

SEED = "instances/seeds/moe-30b-16gpu-apart.yaml"
SEED_PLANS = (
    ("best plan, both kinds allowed", None),
    (
        "as reported, one stage: attention on GPUs 0-3, experts on 4-7",
        "afd=4+4,tp=2,ep=4,pp=1,dp=1,sequences=128",
    ),
    (
        "as reported, two stages with half of the expert GPUs each",
        "afd=2+2,tp=2,ep=2,pp=2,dp=1,sequences=128",
    ),
    (
        "two copies on the 16 GPUs, as many sequences as fit 50 ms",
        "afd=4+4,tp=2,ep=4,pp=1,dp=2",
    ),
)


@dataclass(frozen=True)
class Answer:
    """One solve. ``value`` and ``bound`` are output tokens/s."""

    case: str
    kind: str
    status: str
    plan: str
    gpus: int
    value: float | None
    bound: float | None
    tpot_ms: float | None
    attention_busy: float | None
    experts_busy: float | None
    checked: bool
    cpu_s: float


def answer(name: str, kind: str, instance: Instance, problem: Problem) -> Answer:
    """Solve, decode, check."""
    begun = process_time()
    outcome = solver("default").solve(problem, SearchLimits(TIME_LIMIT_S))
    seconds = round(process_time() - begun, 2)
    status = outcome.status.value
    if outcome.fleet is None:
        nothing = (None, None, None, None, None)
        return Answer(name, kind, status, "none", 0, *nothing, False, seconds)
    plan = decode(instance, problem, outcome.fleet, instance_sha256(instance))
    values = goal_values(problem, plan)
    goals = goal_bounds(problem.goals, values, outcome.bounds)
    view = PlanView(instance, plan)
    total = view.metrics["total"]
    throughput = {goal.name: goal for goal in goals}.get("throughput")
    return Answer(
        name,
        kind,
        status,
        plan_degrees(view),
        total["gpus_used"],
        total["output_tokens_per_s"],
        None if throughput is None else throughput.bound,
        total["tpot_ms"],
        *_busy(view),
        _checked(instance, plan, goals),
        seconds,
    )


def _busy(view: PlanView) -> tuple[float | None, float | None]:
    """Shares of the layers' time in which either sort of GPU works, first stage."""
    replica = view.document.replicas()[0]
    load = view.anatomy.loads(replica.operating_point).decode
    layers = stations(view.anatomy, replica.stages[0], load)
    whole = sum(s.layers * s.share * s.period_ns for s in layers)
    if not whole:
        return None, None
    weights = [s.layers * s.share * s.period_ns / whole for s in layers]
    pairs = list(zip(weights, layers, strict=True))
    attention = sum(w * s.attention_busy for w, s in pairs)
    return attention, sum(w * s.experts_busy for w, s in pairs)


def _checked(instance: Instance, plan: Plan, goals: tuple[ObjectiveValue, ...]) -> bool:
    """Whether the checker passed it; a plan that it refuses to judge is not."""
    try:
        check(instance, plan, goals).raise_if_bad()
    except UnsupportedRule:
        return False
    return True


def both(case: Case) -> Iterator[Answer]:
    """Either kind alone, on the points of both."""
    instance = case.instance()
    problem = compile_problem(instance)
    for apart, kind in KINDS.items():
        units = with_units(problem, lambda u, a=apart: u.shape.disaggregated == a)
        yield answer(case.name, kind, instance, units)


def seed() -> Iterator[Answer]:
    """The seed's layout; without its request rate where it is fixed."""
    given = load(SEED)
    for name, fix in SEED_PLANS:
        instance = override(given, fix=fix, objective=None)
        if fix is not None:
            workload = instance.workload.model_copy(update={"request_rate_per_s": None})
            changes = {"workload": workload, "objective": ("throughput",)}
            instance = instance.model_copy(update=changes)
        yield answer(name, "seed", instance, compile_problem(instance))


HEAD = """# Experts on GPUs of their own

Made by `python -m benchmarks.disaggregated --out benchmarks/results`. Engine `generic`
with equal shapes per stage, most output tokens/s under a TPOT on one island of 8 GPUs;
either kind of stage is solved alone over the same operating points. AFD5+3x2: five
attention GPUs, three expert GPUs, two ping-pong parts. Lengths are input/output tokens,
busy is of the first stage's layers. Colocated stages do not hide their collectives
behind computation, disaggregated ones do (docs/cost-model.md, section 11)."""

READING = """What decides: on an island of equal GPUs a split only moves work. It pays
where both sorts of GPU are nearly always busy and where it hides more communication
than its parts cost in weights read again and in overheads. Iterations with and
without prompts want different splits: in the first case's 4+4, an iteration without
prompts (82% of them) waits for experts that read their weights once per part (226 us
against 138 us of attention), one with prompts for attention and the way round (788 us
against 763 us).
Memory binds as well (expert weights crowd few GPUs, the cache the others), and small
colocated replicas with experts cut by MoE-TP avoid the exchange altogether."""

SEED_HEAD = f"""## The seed report's layout

`{SEED}`, top-2 routing.
A fixed plan is given its most throughput, without the request rate (20,000 tokens/s).
Its attention GPUs wait for its experts: every part reads their weights anew."""

BUSY = ("attention GPUs busy", "expert GPUs busy")
COMPARED = ("case", "colocated", "tokens/s", "disaggregated", "tokens/s", "gain", *BUSY)
LAID_OUT = ("plan", "shape", "GPUs", "tokens/s", "TPOT ms", *BUSY)


def page(answers: list[Answer], own: list[Answer]) -> str:
    """Both tables."""
    pairs = list(zip(answers[::2], answers[1::2], strict=True))
    gains = [(b.value or 0) / (a.value or 1) - 1 for a, b in pairs]
    rows = [_compared(*pair, gain) for pair, gain in zip(pairs, gains, strict=True)]
    every = [*answers, *own]
    proven = sum(x.status in ("OPTIMAL", "INFEASIBLE") for x in every)
    checked = sum(x.checked for x in every)
    verdict = (
        f"Disaggregation wins in {sum(gain > 0 for gain in gains)} of {len(pairs)} "
        f"cases; its best is {max(gains):+.1%}. Of {len(every)} answers {proven} are "
        f"proven (bound = value), {checked} passed the checker."
    )
    first = [HEAD, verdict, _table(rows, COMPARED), READING]
    laid_out = _table([_laid_out(x) for x in own], LAID_OUT)
    return "\n\n".join([*first, SEED_HEAD, laid_out])


def _compared(a: Answer, b: Answer, gain: float) -> list[str]:
    busy = map(_share, (b.attention_busy, b.experts_busy))
    return [a.case, a.plan, _n(a.value), b.plan, _n(b.value), f"{gain:+.1%}", *busy]


def _laid_out(x: Answer) -> list[str]:
    busy = map(_share, (x.attention_busy, x.experts_busy))
    return [x.case, x.plan, str(x.gpus), _n(x.value), _n(x.tpot_ms), *busy]


def _table(rows: list[list[str]], headers: Sequence[str]) -> str:
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _n(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def main() -> None:
    """Print the page; write it with --out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.disaggregated")
    parser.add_argument(
        "--out", type=Path, help="write disaggregated.md and .json there"
    )
    asked = parser.parse_args()
    answers = [found for case in CASES for found in both(case)]
    own = list(seed())
    text = page(answers, own)
    if asked.out is not None:
        document = [asdict(found) for found in [*answers, *own]]
        (asked.out / "disaggregated.md").write_text(text + "\n", encoding="utf-8")
        (asked.out / "disaggregated.json").write_text(
            json.dumps(document, indent=1) + "\n", encoding="utf-8"
        )
    print(text)


if __name__ == "__main__":
    main()
