"""What is known (known.solu) and the one word that a row earns by it.

``known.solu`` has SCIP's format: ``=opt= NAME VALUE`` and ``=inf= NAME``. An optimum is
lexicographic here, so NAME is INSTANCE/GOAL and a goal's value is the one it has among
the optima of the goals before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

KNOWN = Path(__file__).parent / "known.solu"
MAXIMISED = frozenset({"throughput"})

Value = Fraction | None


@dataclass(frozen=True)
class Claim:
    """One goal of an answer, in the goal's own unit."""

    goal: str
    value: Value
    bound: Value

    @classmethod
    def of(cls, goal: str, value: float | None, bound: float | None) -> Claim:
        """Exact: a float's shortest spelling is the decimal that was meant."""
        exact = [None if x is None else Fraction(repr(x)) for x in (value, bound)]
        return cls(goal, exact[0], exact[1])


@dataclass
class Known:
    """Optima by (instance, goal), and instances proven infeasible."""

    optima: dict[tuple[str, str], Fraction] = field(default_factory=dict)
    infeasible: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path = KNOWN) -> Known:
        """The file; nothing is known without it."""
        known = cls()
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for line in lines:
            kind, name, *rest = line.split()
            if kind == "=inf=":
                known.infeasible.add(name)
            elif kind == "=opt=":
                instance, goal = name.rsplit("/", 1)
                known.optima[instance, goal] = Fraction(rest[0])
            else:
                raise ValueError(f"{path}: unknown line {line!r}")
        return known

    def learn(self, instance: str, status: str, claims: Sequence[Claim]) -> None:
        """Replace what is known of an instance by a proven answer."""
        self.infeasible.discard(instance)
        for key in [key for key in self.optima if key[0] == instance]:
            del self.optima[key]
        if status == "INFEASIBLE":
            self.infeasible.add(instance)
        for claim in claims if status == "OPTIMAL" else ():
            if claim.value is not None:
                self.optima[instance, claim.goal] = claim.value

    def write(self, path: Path = KNOWN) -> None:
        """Sorted by instance; goals in the order they were learnt."""
        lines = [f"=inf= {name}" for name in sorted(self.infeasible)]
        names = sorted({instance for instance, _ in self.optima})
        for name in names:
            lines += [
                f"=opt= {instance}/{goal} {decimal(value)}"
                for (instance, goal), value in self.optima.items()
                if instance == name
            ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def has(self, instance: str) -> bool:
        """Whether anything is known of an instance."""
        return instance in self.infeasible or any(
            name == instance for name, _ in self.optima
        )


def decimal(value: Fraction) -> str:
    """All digits of a value that has finitely many."""
    digits = 0
    while (value * 10**digits).denominator != 1:
        digits += 1
        if digits > 12:
            raise ValueError(f"{value} is no decimal")
    whole = value * 10**digits
    text = str(abs(whole.numerator)).rjust(digits + 1, "0")
    sign = "-" if value < 0 else ""
    cut = len(text) - digits
    return sign + text[:cut] + ("." + text[cut:] if digits else "")


def contradiction(
    instance: str, status: str, claims: Sequence[Claim], known: Known
) -> str | None:
    """How an answer contradicts what is known; None when it does not."""
    has_plan = any(claim.value is not None for claim in claims)
    if instance in known.infeasible:
        return "fail (solution infeasible)" if has_plan else None
    if not known.has(instance):
        return None
    if status == "INFEASIBLE":
        return "fail (infeasible)"
    return _goal_by_goal(instance, status, claims, known.optima)


def _goal_by_goal(
    instance: str,
    status: str,
    claims: Sequence[Claim],
    optima: Mapping[tuple[str, str], Fraction],
) -> str | None:
    """A goal is compared as long as the goals before it have their optimal values."""
    for claim in claims:
        best = optima.get((instance, claim.goal))
        if best is None:
            return None
        turn = -1 if claim.goal in MAXIMISED else 1
        if claim.bound is not None and turn * claim.bound > turn * best:
            return "fail (dual bound)"
        if claim.value is None:
            return None
        if turn * claim.value < turn * best:
            return "fail (objective value)"
        if claim.value != best:
            return "fail (objective value)" if status == "OPTIMAL" else None
    return None


def word(
    instance: str, status: str, stopped_by: str, claims: Sequence[Claim], known: Known
) -> str:
    """SCIP's word for an answer whose plan, if any, has passed the checker."""
    wrong = contradiction(instance, status, claims, known)
    if wrong is not None:
        return wrong
    if status in ("OPTIMAL", "INFEASIBLE"):
        return "ok" if known.has(instance) else "solved"
    if status in ("FEASIBLE", "UNKNOWN"):
        return {"time": "timeout", "gap": "gaplimit"}.get(stopped_by, stopped_by)
    return "fail (abort)"
