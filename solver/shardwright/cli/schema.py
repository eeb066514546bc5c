"""``shardwright schema``: JSON Schemas of the documents."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from shardwright.cli.exits import reported


class DocumentName(StrEnum):
    """Documents with a published schema."""

    INSTANCE = "instance"
    PLAN = "plan"
    RESULT = "result"
    CLAIMS = "claims"


def schema(
    document: Annotated[
        DocumentName, typer.Argument(help="Which document.")
    ] = DocumentName.INSTANCE,
) -> None:
    """Print the JSON Schema of a document."""
    with reported():
        from shardwright.ingest import json_schema

        schemas = {
            DocumentName.INSTANCE: json_schema.instance_schema,
            DocumentName.PLAN: json_schema.plan_schema,
            DocumentName.RESULT: json_schema.result_schema,
            DocumentName.CLAIMS: json_schema.claims_schema,
        }
        typer.echo(json.dumps(schemas[document](), indent=2))
