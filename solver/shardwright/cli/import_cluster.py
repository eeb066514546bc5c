"""``shardwright import``: a cluster file from what a cluster's tools print."""

from __future__ import annotations

import json as json_text
from typing import Annotated

import typer

from shardwright.cli.exits import reported

_FILES = (
    "What tools print: nvidia-smi topo -m, nvidia-smi --query-gpu as CSV, NCCL XML, "
    "kubectl get nodes -o json, Slurm's topology and nodes, rocm-smi --showtopo. "
    "Told by content; NODE=FILE names the node."
)
_GPU = "GPU type of the catalogue where no file names one; PRINTED=NAME for a name."
_COUNT = "GPUs of nodes of which no file says it."
_LIKE = "Nodes of which no file has the links are like this one."
_PCIE = "node or numa: what is an island without fast links."
_OUTPUT = "Write the cluster file here; - prints it instead of the table."


def import_cluster(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help=_FILES)],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help=_OUTPUT)
    ] = None,
    gpu: Annotated[list[str] | None, typer.Option(metavar="NAME", help=_GPU)] = None,
    gpus_per_node: Annotated[int | None, typer.Option(help=_COUNT)] = None,
    like: Annotated[str | None, typer.Option(metavar="NODE", help=_LIKE)] = None,
    pcie_islands: Annotated[
        str, typer.Option(metavar="node|numa", help=_PCIE)
    ] = "node",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON.")] = False,
) -> None:
    """Read a cluster from what its tools print."""
    with reported():
        from shardwright.ingest.importers import import_cluster as read

        found = read(
            files,
            gpu=gpu or (),
            gpus_per_node=gpus_per_node,
            like=like,
            pcie_islands=pcie_islands,
        )
        if output is not None and output != "-":
            found.save(output)
        if json:
            typer.echo(json_text.dumps(found.as_dict(), indent=2))
        elif output == "-":
            typer.echo(found.yaml, nl=False)
            typer.echo(found.table(), err=True)
        else:
            typer.echo(found.table())
