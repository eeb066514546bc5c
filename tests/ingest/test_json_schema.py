"""The published JSON Schemas."""

from __future__ import annotations

import json

import pytest

from shardwright.ingest.json_schema import (
    instance_schema,
    plan_schema,
    result_schema,
)


@pytest.mark.parametrize(
    ("schema", "name", "required"),
    [
        (instance_schema(), "instance", {"name", "model", "cluster", "workload"}),
        (plan_schema(), "plan", {"instance_name", "instance_sha256", "pools"}),
        (result_schema(), "result", {"status", "plan", "objectives"}),
    ],
)
def test_schema_is_named_versioned_and_closed(schema, name, required) -> None:
    assert schema["$id"] == f"urn:shardwright:{name}:1.0"
    assert schema["title"] == f"shardwright {name} 1.0"
    assert required <= set(schema["required"])
    assert schema["additionalProperties"] is False
    json.dumps(schema, allow_nan=False)


def test_fields_have_the_names_that_files_use() -> None:
    types = instance_schema()["$defs"]
    assert "memory" in types["GpuReference"]["properties"]
    assert "reserve_per_gpu" in types["Limits"]["properties"]
