"""Rows of a PuLP minimisation, written as terms and kept off the tolerances.

Times of 10^7 ns and rates of 10^7 next to binaries are beyond doubles: their rounding
error is what engines tolerate (1e-9), and HiGHS then finds feasible programs
infeasible. So a continuous variable is held in units of its own range, each row is
divided by its largest coefficient, and rows between integers get half a unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import floor, log10
from typing import Any

Terms = Sequence[tuple[Any, float]]
"""A linear expression as (variable, weight) pairs; a variable may come twice."""


@dataclass
class Rows:
    """A PuLP problem under construction. Names are made here, unique and plain:
    PuLP rewrites brackets and blanks, and CBC crashes on a name that comes twice."""

    lp: Any
    rows: int = field(default=0, kw_only=True)
    units: dict[str, float] = field(default_factory=dict, kw_only=True)

    def binary(self, name: str) -> Any:
        """A variable in {0, 1}."""
        return self.integer(name, 1)

    def integer(self, name: str, top: int) -> Any:
        """A variable in {0, ..., top}."""
        return self.lp.add_variable(name, 0, top, "Integer")

    def number(self, name: str, top: float) -> Any:
        """A variable in [0, top], held in units of a power of ten near ``top``."""
        unit = 10.0 ** floor(log10(top)) if top > 1 else 1.0
        self.units[name] = unit
        return self.lp.add_variable(name, 0, top / unit)

    def amount(self, variable: Any, values: Mapping[str, float]) -> float:
        """Value of a continuous variable in its own measure."""
        return self.units[variable.name] * values[variable.name]

    def minimise(self, terms: Terms) -> None:
        """Set the objective."""
        import pulp

        self.lp.setObjective(pulp.LpAffineExpression(self._collect(terms)))

    def at_most(self, left: Terms, right: float, rule: str) -> None:
        """left <= right."""
        expression, largest = self._scaled(left)
        self.lp.addConstraint(expression <= right / largest, self._name(rule))

    def whole_at_most(self, left: Terms, right: float, rule: str) -> None:
        """left <= right between integers: half a unit keeps it off the tolerances."""
        self.at_most(left, right + 0.5, rule)

    def equal(self, left: Terms, right: float, rule: str) -> None:
        """left = right."""
        expression, largest = self._scaled(left)
        self.lp.addConstraint(expression == right / largest, self._name(rule))

    def _scaled(self, terms: Terms) -> tuple[Any, float]:
        """The expression divided by its largest coefficient, and that divisor."""
        import pulp

        total = self._collect(terms)
        largest = max((abs(w) for w in total.values()), default=0) or 1.0
        shares = {v: w / largest for v, w in total.items()}
        return pulp.LpAffineExpression(shares), largest

    def _collect(self, terms: Terms) -> dict[Any, float]:
        """Weights per variable, in the units that the variables are held in."""
        total: dict[Any, float] = {}
        for variable, weight in terms:
            unit = self.units.get(variable.name, 1.0)
            total[variable] = total.get(variable, 0) + unit * weight
        return total

    def _name(self, rule: str) -> str:
        self.rows += 1
        return f"{rule}_{self.rows}"


def minimisation(name: str) -> Any:
    """An empty PuLP problem; PuLP turns maximisation and its bounds around."""
    import pulp

    return pulp.LpProblem(name, pulp.LpMinimize)


def negated(terms: Terms) -> Terms:
    """-1 times an expression."""
    return [(variable, -weight) for variable, weight in terms]


def scaled(terms: Terms, factor: float) -> Terms:
    """A multiple of an expression."""
    return [(variable, factor * weight) for variable, weight in terms]
