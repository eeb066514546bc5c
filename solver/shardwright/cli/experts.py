"""``shardwright experts``: which expert sits in which slot, with its proof."""

from __future__ import annotations

import json as json_text
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from shardwright.cli.exits import ExitCode, reported

_LOADS = (
    "Tokens per MoE layer and expert: .json, .csv, .npy or .npz. Several: scenarios."
)
_SLOTS = "Expert slots over all GPUs (physical experts), a multiple of --gpus."
_GROUPS = "Node-limited routing: groups of experts, each kept on one node."
_SPLIT = "How the engine spreads an expert's tokens over its copies."
_RULE = "Which nearest-copy rule SGLang has (sglang_static)."
_CURRENT = "Map to start from (physical_to_logical_map)."
_MOVES = "Most experts per layer that may come to a GPU without them."
_SCENARIOS = "Further load tables; the plan is made for all of them."
_ROBUST = "With several tables: minimise the worst or the mean of them."
_COPIES = "Allow two copies of an expert on one GPU."
_GAP = "Stop a layer within this gap of its bound."
_SAVE_MAP = "Also write the map alone, as SGLang reads it, to this file."


class Dispatch(StrEnum):
    """How an engine spreads tokens over copies."""

    EVEN = "even"
    SGLANG_STATIC = "sglang_static"
    LP = "lp"


class Rule(StrEnum):
    """Generations of SGLang's static dispatch."""

    NEWER = "newer"
    OLDER = "older"


class Robust(StrEnum):
    """What counts over several load tables."""

    WORST = "worst"
    MEAN = "mean"


def experts(
    loads: Annotated[list[Path], typer.Argument(metavar="LOADS", help=_LOADS)],
    gpus: Annotated[int, typer.Option(help="GPUs of the expert group.")],
    slots: Annotated[int, typer.Option(help=_SLOTS)],
    nodes: Annotated[int, typer.Option(help="Nodes that the GPUs are on.")] = 1,
    groups: Annotated[int | None, typer.Option(help=_GROUPS)] = None,
    split: Annotated[Dispatch, typer.Option(help=_SPLIT)] = Dispatch.EVEN,
    sglang_rule: Annotated[Rule, typer.Option(help=_RULE)] = Rule.NEWER,
    current: Annotated[Path | None, typer.Option(metavar="MAP", help=_CURRENT)] = None,
    max_moves: Annotated[int | None, typer.Option(help=_MOVES)] = None,
    scenarios: Annotated[list[Path] | None, typer.Option(help=_SCENARIOS)] = None,
    robust: Annotated[Robust, typer.Option(help=_ROBUST)] = Robust.WORST,
    allow_copies: Annotated[bool, typer.Option("--allow-copies", help=_COPIES)] = False,
    gap: Annotated[str, typer.Option(help=_GAP)] = "0.05%",
    time_limit: Annotated[
        float, typer.Option(help="Seconds before the best map is returned.")
    ] = 60.0,
    workers: Annotated[
        int, typer.Option(min=1, max=1024, help="Threads of the proofs.")
    ] = 2,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Random seed.")] = 0,
    save_map: Annotated[Path | None, typer.Option(help=_SAVE_MAP)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON.")] = False,
) -> None:
    """Place the experts of a mixture on GPUs, balanced for recorded loads."""
    with reported():
        from shardwright.cli.options import parse_gap, parse_seconds
        from shardwright.cli.placing import answer, save

        found = answer(
            [*loads, *(scenarios or [])],
            current,
            gap=float(parse_gap(gap)),
            time_limit_s=parse_seconds(time_limit),
            workers=workers,
            seed=seed,
            gpus=gpus,
            slots=slots,
            nodes=nodes,
            groups=groups,
            split=split.value,
            sglang_rule=sglang_rule.value,
            max_moves=max_moves,
            robust=robust.value,
            allow_copies_on_one_gpu=allow_copies,
        )
        document: dict[str, Any] = found.document()
        typer.echo(json_text.dumps(document, indent=2) if json else found.text())
        if save_map is not None:
            save(save_map, found)
    raise typer.Exit(ExitCode.DONE if found.done else ExitCode.LIMIT)
