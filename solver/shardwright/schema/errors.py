"""Every exception of the package: one root, one child per kind of failure.

Infeasible instances and time limits are results, not exceptions.
"""

from __future__ import annotations

from dataclasses import dataclass


class ShardwrightError(Exception):
    """Root of all errors raised on purpose."""


@dataclass(frozen=True)
class FieldError:
    """One refused field: where it is, what was found, what is allowed."""

    path: str
    found: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}; {self.allowed}"


class InvalidInstance(ShardwrightError):
    """A document was refused; ``errors`` lists every field that is wrong."""

    def __init__(self, source: str, errors: list[FieldError]) -> None:
        self.source = source
        self.errors = errors
        super().__init__("\n".join([f"{source} is refused:", *map(str, errors)]))

    def __reduce__(self) -> tuple[type[InvalidInstance], tuple[str, list[FieldError]]]:
        return type(self), (self.source, self.errors)


class UnsupportedRule(ShardwrightError):
    """A solver was asked for a rule or goal that it does not model."""

    def __init__(self, solver: str, rule: str) -> None:
        self.solver = solver
        self.rule = rule
        super().__init__(f"solver {solver!r} does not model {rule!r}")

    def __reduce__(self) -> tuple[type[UnsupportedRule], tuple[str, str]]:
        return type(self), (self.solver, self.rule)


class InstanceTooLarge(ShardwrightError):
    """A program would exceed the size that its solver is allowed to build."""


class SolverUnavailable(ShardwrightError):
    """A solver's library is missing or cannot be loaded."""


class SolverFailure(ShardwrightError):
    """A solver broke its contract: an invalid model or an unknown status."""


class CheckFailed(ShardwrightError):
    """A plan breaks rules that it claims to keep; ``violations`` lists them all."""

    def __init__(self, violations: list[str]) -> None:
        self.violations = violations
        super().__init__("\n".join(["the plan fails the checker:", *violations]))

    def __reduce__(self) -> tuple[type[CheckFailed], tuple[list[str]]]:
        return type(self), (self.violations,)
