"""A plan beside what a certificate proves, in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from shardwright.check.certificate import Proof, verify
from shardwright.check.certificate_tables import NotCovered
from shardwright.check.report import Report
from shardwright.schema.certificate import Certificate
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.instance import Instance


@dataclass(frozen=True)
class Certified:
    """The plan's value of the goal, and the proof; mtok/s or GPUs."""

    value: int
    proof: Proof

    @property
    def optimal(self) -> bool:
        """Whether the bound, re-checked, equals the plan's value."""
        return self.proof.bound == self.value

    @property
    def refuted(self) -> bool:
        """Whether the plan is better than the bound: one of the two is wrong."""
        bound = self.proof.bound
        if bound is None:
            return False
        more = self.value > bound
        return more if self.proof.goal == "throughput" else self.value < bound

    @property
    def accepted(self) -> bool:
        """Whether a bound was re-checked that the plan keeps."""
        return self.proof.bound is not None and not self.refuted

    def text(self) -> str:
        """The answer in two or three lines."""
        proof, show = self.proof, _SHOWN[self.proof.goal]
        if proof.bound is None:
            some = ", ".join(f"M={m} q={q}" for m, q in proof.missing[:5])
            return f"certificate: incomplete, nothing is said of {some}"
        most = proof.goal == "throughput"
        words = "no fleet exceeds" if most else "no fleet needs less than"
        found = f"{show(proof.bound)}; the plan has {show(self.value)}"
        lines = [f"certificate: {words} {found}"]
        if self.refuted:
            return f"{lines[0]}: the certificate is not of this plan and instance"
        gap = abs(proof.bound - self.value) / max(1, self.value)
        verdict = "optimal" if self.optimal else f"within {gap:.4%} of the optimum"
        lines.append(f"{verdict}, re-checked in integers over {proof.links:,} links")
        if proof.open:
            claimed = proof.claimed_bound
            some = ", ".join(f"M={m} q={q}" for m, q in proof.open[:5])
            lines.append(
                f"at {len(proof.open)} operating points ({some}) the rest of the claim,"
                " "
                f"{show(claimed or 0)}, rests on the solver"
            )
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        return {"value": self.value, "optimal": self.optimal, **asdict(self.proof)}


def _rate(mtok: int) -> str:
    return f"{mtok / 1000:,.3f} tokens/s"


def _gpus(gpus: int) -> str:
    return f"{gpus:,} GPUs"


_SHOWN = {"throughput": _rate, "gpus": _gpus}


def certified(
    instance: Instance,
    report: Report,
    certificate: Certificate,
    grid: dict[str, Any] | None = None,
) -> Certified:
    """Verify a certificate for a plan that was checked.

    ``grid`` is the grid that a result prints. Raises InvalidInstance where a rule of
    the instance is not covered, or prices are missing.
    """
    batches = (grid or {}).get("sequences", {})
    asked = {int(q): tuple(some) for q, some in batches.items()}
    try:
        chunks = tuple((grid or {}).get("prefill_chunk_tokens", ()))
        proof = verify(instance, certificate, asked, chunks)
    except NotCovered as error:
        allowed = "a rule that certificates know"
        raise _refused(f"an instance with {error}", allowed) from error
    except ValueError as error:
        raise _refused(str(error), "prices for every size of a segment") from error
    figures = report.figures
    if proof.goal == "throughput":
        return Certified(figures.rate_mtok_per_s(), proof)
    return Certified(figures.gpus_used, proof)


def _refused(found: str, allowed: str) -> InvalidInstance:
    return InvalidInstance("certificate", [FieldError("certificate", found, allowed)])
