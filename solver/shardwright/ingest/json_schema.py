"""JSON Schemas of the documents, for editors and other programs."""

from __future__ import annotations

from typing import Any

from shardwright.schema.base import SCHEMA_VERSION
from shardwright.schema.claims import Claims
from shardwright.schema.instance import InstanceFile
from shardwright.schema.plan import Plan
from shardwright.schema.result import Result

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def instance_schema() -> dict[str, Any]:
    """What an instance file may say. Rules between fields are not in it."""
    return _schema("instance", InstanceFile.model_json_schema())


def plan_schema() -> dict[str, Any]:
    """What a plan file may say."""
    return _schema("plan", Plan.model_json_schema())


def result_schema() -> dict[str, Any]:
    """What a result holds: every field is there, as results are written."""
    return _schema("result", Result.model_json_schema(mode="serialization"))


def claims_schema() -> dict[str, Any]:
    """What a file of claims may say."""
    return _schema("claims", Claims.model_json_schema())


def _schema(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "$schema": DIALECT,
        "$id": f"urn:shardwright:{name}:{SCHEMA_VERSION}",
        **schema,
        "title": f"shardwright {name} {SCHEMA_VERSION}",
    }
