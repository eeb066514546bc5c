"""Reading the raw config.json of a model, field by field, nothing left over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from shardwright.ingest.refuse import nearest, refuse, shown
from shardwright.schema.errors import FieldError, InvalidInstance

MAX_WIDTH = 10**7
MAX_TOKENS = 10**8
MAX_LAYERS = 2000


class Fields:
    """One mapping of a config.json; what is read is ticked off.

    ``done`` refuses every field that was neither read nor declared harmless, so a
    new field of a new release is an error and never silently ignored.
    """

    def __init__(self, raw: Any, source: str, path: str = "") -> None:
        self.source = source
        self.path = path
        if not isinstance(raw, dict):
            refuse(source, path or "(document)", shown(raw), "a mapping is needed")
        self.raw: dict[str, Any] = raw
        self._read: set[str] = set()

    def at(self, name: str) -> str:
        """The path of a field from the root of the document."""
        return f"{self.path}.{name}" if self.path else name

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.raw.get(name) is not None

    def get(self, name: str) -> Any:
        """The raw value, ticked off; None when absent."""
        self._read.add(name)
        return self.raw.get(name)

    def refuse(self, name: str, allowed: str) -> NoReturn:
        """Refuse the value of a field."""
        found = shown(self.raw[name]) if name in self.raw else "nothing"
        refuse(self.source, self.at(name), found, allowed)

    def whole(
        self, name: str, default: int | None = None, most: int = MAX_WIDTH
    ) -> int:
        """A whole number from 1 to ``most``; absent or null takes the default.

        ``default`` is what the architecture's own config class documents; without
        one the field is required.
        """
        value = self.get(name)
        if value is None and default is not None:
            return default
        if type(value) is not int or not 1 <= value <= most:
            self.refuse(name, f"a whole number from 1 to {most}")
        return int(value)

    def count(self, name: str, default: int | None = None, most: int = 10**5) -> int:
        """A whole number from 0 to ``most``; absent or null takes the default."""
        value = self.get(name)
        if value is None and default is not None:
            return default
        if type(value) is not int or not 0 <= value <= most:
            self.refuse(name, f"a whole number from 0 to {most}")
        return int(value)

    def optional(self, name: str, most: int = MAX_TOKENS) -> int | None:
        """A whole number, or None when the field is absent or null."""
        return self.whole(name, most=most) if self.has(name) else self.get(name)

    def flag(self, name: str, default: bool) -> bool:
        """true or false; absent or null takes the default."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(name, "true or false")
        return bool(value)

    def exactly(self, name: str, *allowed: Any) -> Any:
        """A field that may be absent, null, or one of ``allowed``: its other values
        are real features that the schema does not describe."""
        value = self.get(name)
        if value is not None and not any(_same(value, a) for a in allowed):
            words = ", ".join(["null", *(shown(a) for a in allowed)])
            self.refuse(name, f"only {words} is understood here")
        return value

    def inner(self, name: str) -> Fields:
        """A mapping inside this one."""
        return Fields(self.get(name), self.source, self.at(name))

    def harmless(self, names: Iterable[str]) -> None:
        """Tick off fields that change neither sizes nor costs."""
        self._read |= set(names)

    def done(self) -> None:
        """Refuse what is left over."""
        left = sorted(set(self.raw) - self._read)
        if left:
            raise InvalidInstance(
                self.source, [FieldError(*self._unknown(name)) for name in left]
            )

    def _unknown(self, name: str) -> tuple[str, str, str]:
        hint = nearest(name, self._read - set(self.raw))
        return (
            self.at(name),
            shown(self.raw[name]),
            f"{hint}this field is not understood for this architecture",
        )


def _same(value: Any, allowed: Any) -> bool:
    return type(value) is type(allowed) and bool(value == allowed)
