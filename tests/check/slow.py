"""The finger model on GPUs so slow that every term is whole microseconds."""

from __future__ import annotations

from typing import Any

from tests.check.builders import Changes, Sketch, instance, plan_for
from tests.check.mixtures import FFN, MIXTURE

from shardwright.check import Report, check
from shardwright.schema.instance import Instance

CONSTANTS = "cluster.gpu_types.big.calibration"

# 336 matrix weights and 16 B of cache per token in each of two layers; prompts of 100
# tokens, answers of 200: L_e = 100, E_kv = 200, A = 50. With m = 8: c = 4, x̂ = ŝ = 100,
# φ = 1/25.
DENSE: dict[str, Any] = {
    **MIXTURE,
    FFN: {"intermediate": 6},
    "workload.input_tokens": {"constant": 100},
}
GPU = [(0, 2, "big", "a-0", (0,))]
ALONE = Sketch(GPU, 8, 1, 100)
PREFILL = Sketch([(0, 2, "big", "a-0", (1,))], 1, 1, 100, role="prefill")
DECODE = Sketch([(0, 2, "big", "a-0", (2,))], 8, 1, 0, role="decode")
APART = {"pools": "disaggregated"}

# µs of a layer for 8 sequences without a prompt, and with one of 100 tokens:
#   matrices     2·336·8/5e5 = 10,752 and 2·336·108/5e5 = 145,152 (read in 672)
#   decode att.  8·200·16/5e5 = 51,200
#   prefill att. 0 and 4·100·50·4·2/2e5 = 800,000
#   overhead     2
# 61,954 and 996,354; in balance 61,954 + 934,400/25.
LAYER = 99_330_000
# 50 + 8·1; embedding 8·16/1e6 = 128 and 1,728; head 4,096 a row for 8 and 9 rows.
# 32,954 and 38,650; in balance 32,954 + 5,696/25.
CONSTANT = 33_181_840
BALANCED = 2 * LAYER + CONSTANT


def dense(changes: Changes | None = None) -> Instance:
    """The dense finger model, with changes."""
    return instance({**DENSE, **(changes or {})})


def decode_ns(changes: Changes | None = None, sketch: Sketch = ALONE) -> int:
    """τ of its only stage."""
    report = report_of(dense(changes), sketch)
    report.raise_if_bad()
    return report.figures.replicas[0].stages[0].decode.total_ns


def report_of(subject: Instance, *sketches: Sketch) -> Report:
    """The report of a plan whose claims are right."""
    return check(subject, plan_for(subject, *sketches))
