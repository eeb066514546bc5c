"""A certificate for an instance: prices by the search, multipliers by the checker."""

from __future__ import annotations

from shardwright.check.certificate import Verifier
from shardwright.check.certificate_links import with_links
from shardwright.check.certificate_tables import NotCovered, PointTables
from shardwright.problem import compile_problem
from shardwright.schema.certificate import Certificate
from shardwright.schema.errors import UnsupportedRule
from shardwright.schema.instance import Instance
from shardwright.search.base import SearchLimits
from shardwright.search.certify import certificate_prices


def certify(instance: Instance, limits: SearchLimits) -> Certificate:
    """Prices and chains that bound the first goal of an instance.

    Raises UnsupportedRule where a rule or goal is not covered.
    """
    problem = compile_problem(instance)
    try:
        tables = PointTables(instance)
    except NotCovered as error:
        raise UnsupportedRule("certificate", str(error)) from error
    found = certificate_prices(problem, limits)
    if found is None:
        raise UnsupportedRule(
            "certificate", f"goal {problem.goals[0]} with these rules"
        )
    rows, per_gpu, slack = found
    names = (gpu_class.name for gpu_class in problem.classes)
    certificate = Certificate(
        goal="gpus" if problem.goals[0] == "gpus" else "throughput",
        prices={n: tuple(row) for n, row in zip(names, rows, strict=True)},
        per_gpu=per_gpu,
        slack_ppb=slack,
        prefill_chunk_tokens=tuple(sorted({p.chunk_tokens for p in problem.points})),
        chains=(),
    )
    points = sorted({(p.sequences, p.micro_batches) for p in problem.points})
    return with_links(Verifier(tables, certificate), points)
