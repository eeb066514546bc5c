"""Strict YAML 1.2: the part of it that JSON can say, plus comments and aliases.

Documents are built from ruamel's events by this module, so that every rule is in
sight: the core schema decides what a plain scalar is (``yes`` is text, ``010`` is
ten), keys are text, and a duplicate key, a tag, a merge key, a second document or
a document that grows out of hand is refused with its line.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from shardwright.ingest.refuse import refuse, shown

MAX_DEPTH = 32
MAX_NODES = 50_000
MAX_CHARACTERS = 10**6
"""Scalars, lists and mappings, aliases written out, and characters of the text:
each is about one second of parsing, as ruamel scans in Python."""

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INTEGER = re.compile(r"[-+]?[0-9]+")
_RADIX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LONGEST_NUMBER = 400


@dataclass
class _Open:
    """A list or mapping whose end has not been read."""

    value: list[Any] | dict[str, Any]
    anchor: str | None
    nodes_before: int
    key: str | None = None


@dataclass
class _Builder:
    """Plain values from parser events.

    ``nodes`` counts every node, an aliased one as often as it is written out.
    """

    source: str
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int, int]] = field(default_factory=dict)
    nodes: int = 0
    root: Any = None
    documents: int = 0

    def refuse(self, event: Any, found: str, allowed: str) -> NoReturn:
        line = event.start_mark.line + 1
        refuse(self.source, f"line {line}", found, allowed)

    def count(self, event: Any, nodes: int, depth: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            self.refuse(
                event,
                f"more than {MAX_NODES} values (aliases written out)",
                "write a document of this size as .json",
            )
        if len(self.stack) + depth > MAX_DEPTH:
            self.refuse(
                event,
                f"more than {MAX_DEPTH} levels of nesting",
                f"at most {MAX_DEPTH} levels are allowed",
            )

    def place(self, event: Any, value: Any) -> None:
        """Put a finished value where the document has it."""
        if not self.stack:
            self.root = value
            return
        parent = self.stack[-1]
        if isinstance(parent.value, list):
            parent.value.append(value)
        elif parent.key is None:
            parent.key = self.key(event, parent.value)
        else:
            parent.value[parent.key] = value
            parent.key = None

    def key(self, event: Any, mapping: dict[str, Any]) -> str:
        """The text of a key; whole numbers stand for their text, as in JSON."""
        if type(event).__name__ != "ScalarEvent":
            self.refuse(event, "a key that is not a scalar", "keys are text")
        text = str(event.value)
        if event.implicit[0]:
            value = self.scalar(event)
            if value is None or isinstance(value, bool | float):
                self.refuse(event, f"the key {shown(value)}", "keys are text; quote it")
            if text == "<<":
                self.refuse(event, "the merge key <<", "YAML 1.2 has no merge key")
        if text in mapping:
            self.refuse(event, f"the key {shown(text)} twice", "keys are unique")
        return text

    def scalar(self, event: Any) -> Any:
        """The value of a scalar by the YAML 1.2 core schema."""
        text = str(event.value)
        if not event.implicit[0]:
            return text
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _NOT_FINITE.fullmatch(text):
            self.refuse(event, text, "numbers are finite")
        return self.number(event, text)

    def number(self, event: Any, text: str) -> Any:
        if text[0] not in "+-.0123456789":
            return text
        whole = _INTEGER.fullmatch(text)
        real = None if whole else _FLOAT.fullmatch(text)
        if (whole or real) and len(text) > _LONGEST_NUMBER:
            self.refuse(
                event, f"a number of {len(text)} characters", "a shorter number"
            )
        if whole:
            return int(text)
        if _RADIX.fullmatch(text):
            return int(text, 0) if len(text) <= 18 else text
        return float(text) if real else text

    def alias(self, event: Any) -> None:
        if event.anchor not in self.anchors:
            self.refuse(event, f"the alias *{event.anchor}", "its anchor must be above")
        value, nodes, depth = self.anchors[event.anchor]
        self.count(event, nodes, depth)
        self.place(event, value)

    def open(self, event: Any, value: list[Any] | dict[str, Any]) -> None:
        self.count(event, 1, 1)
        if isinstance(value, dict | list) and self._awaits_key():
            self.refuse(event, "a key that is not a scalar", "keys are text")
        self.stack.append(_Open(value, event.anchor, self.nodes - 1))

    def close(self, event: Any) -> None:
        ended = self.stack.pop()
        if ended.anchor is not None:
            size = self.nodes - ended.nodes_before
            self.anchors[ended.anchor] = (ended.value, size, depth_of(ended.value))
        self.place(event, ended.value)

    def _awaits_key(self) -> bool:
        top = self.stack[-1] if self.stack else None
        return top is not None and isinstance(top.value, dict) and top.key is None

    def take(self, event: Any) -> None:
        """Read one event."""
        match type(event).__name__:
            case "DocumentStartEvent":
                self._start_document(event)
            case "AliasEvent":
                if self._awaits_key():
                    self.refuse(event, f"the alias *{event.anchor}", "keys are text")
                self.alias(event)
            case "ScalarEvent":
                self._check_tag(event)
                self.count(event, 1, 0)
                value = self.scalar(event)
                if event.anchor is not None:
                    self.anchors[event.anchor] = (value, 1, 0)
                self.place(event, value)
            case "SequenceStartEvent" | "MappingStartEvent" as kind:
                self._check_tag(event)
                self.open(event, [] if kind.startswith("Seq") else {})
            case "SequenceEndEvent" | "MappingEndEvent":
                self.close(event)

    def _check_tag(self, event: Any) -> None:
        if event.tag is not None:
            self.refuse(event, f"the tag {event.tag}", "tags are not allowed")

    def _start_document(self, event: Any) -> None:
        self.documents += 1
        if self.documents > 1:
            self.refuse(event, "a second document (---)", "one document per file")
        if event.version not in (None, (1, 2)):
            version = ".".join(map(str, event.version))
            self.refuse(event, f"%YAML {version}", "YAML 1.2 is read")


def depth_of(value: Any) -> int:
    """Levels of lists and mappings in a value; 0 for a scalar."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, list | dict)]:
        depth += 1
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


def read_yaml(text: str, source: str) -> Any:
    """The value of a YAML document, as JSON would have it.

    Raises InvalidInstance with the line as path.
    """
    if len(text) > MAX_CHARACTERS:
        refuse(
            source,
            "(text)",
            f"{len(text)} characters of YAML",
            f"at most {MAX_CHARACTERS}; write a larger document as .json",
        )
    builder = _Builder(source)
    for event in _events(text, source):
        builder.take(event)
    if not builder.documents:
        refuse(source, "line 1", "an empty document", "a mapping is needed")
    return builder.root


def _events(text: str, source: str) -> Iterator[Any]:
    # ruamel is imported here: JSON documents never pay for it
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    parser = YAML(typ="safe", pure=True).parse(io.StringIO(text))
    while True:
        try:
            event = next(parser)
        except StopIteration:
            return
        except YAMLError as error:
            _refuse_syntax(error, source)
        # ruamel trips over some broken texts itself; to a reader both are syntax
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            refuse(source, "(text)", f"broken YAML: {str(error)[:200]}", "valid YAML")
        else:
            yield event


def _refuse_syntax(error: Any, source: str) -> None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    found = getattr(error, "problem", None) or str(error).splitlines()[0]
    path = f"line {mark.line + 1}" if mark is not None else "(text)"
    refuse(source, path, f"broken YAML: {found}", "valid YAML 1.2")
