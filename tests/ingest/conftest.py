"""An instance file that loads, and what a change of it is refused for."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardwright.ingest.load import load_bytes
from shardwright.ingest.yaml_text import read_yaml
from shardwright.schema.errors import InvalidInstance

INSTANCE = """\
# eight GPUs of one node
schema_version: "1.0"
name: llama-70b
model: meta-llama/Meta-Llama-3-70B-Instruct
cluster:
  gpu_types:
    h100: {catalogue: H100-SXM, memory: 80 GB}
  nodes:
    - {name: node, gpu: h100, gpus: 8, failed: [7]}
workload:
  request_rate_per_s: 4
  input_tokens: {constant: 2048}
  output_tokens: {mean: 256, cv: 0.5}
  max_batch: 64
  max_context_tokens: 4096
slo:
  - {metric: ttft, percentile: 99, limit_ms: 1000}
  - {metric: tpot, limit_ms: 60}
limits: {memory_fraction: 85%}
fix: {tp: 2, pp: 4, layers: [20, 20, 20, 20], dp: 1}
"""

MISSING = object()


@pytest.fixture
def instance_text() -> str:
    return INSTANCE


@pytest.fixture
def document() -> dict[str, Any]:
    return dict(read_yaml(INSTANCE, "instance.yaml"))


@pytest.fixture
def missing() -> object:
    return MISSING


@pytest.fixture
def changed(document: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """The document with values at dotted paths changed, or removed (MISSING)."""

    def with_changes(changes: dict[str, Any]) -> dict[str, Any]:
        result = copy.deepcopy(document)
        for path, value in changes.items():
            put(result, path, value)
        return result

    return with_changes


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[dict[str, Any]], dict[str, tuple[str, str]]]:
    """Path of every refused field of a document: what was found, what is allowed."""

    def refusals(raw: dict[str, Any]) -> dict[str, tuple[str, str]]:
        data = json.dumps(raw).encode()
        with pytest.raises(InvalidInstance) as caught:
            load_bytes(data, "instance.json", tmp_path)
        return {e.path: (e.found, e.allowed) for e in caught.value.errors}

    return refusals


def put(raw: Any, path: str, value: Any) -> None:
    *above, last = path.split(".")
    for step in above:
        raw = raw[int(step)] if isinstance(raw, list) else raw.setdefault(step, {})
    if value is MISSING:
        del raw[last]
    elif isinstance(raw, list):
        raw[int(last)] = value
    else:
        raw[last] = value
