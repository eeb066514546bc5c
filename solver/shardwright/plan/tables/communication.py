"""Communication pattern: bytes, link and time of every collective and hop."""

from __future__ import annotations

from shardwright.plan.communication import exchanges, pass_totals
from shardwright.plan.groups import ReplicaGroup, grouped, merged
from shardwright.plan.tables.text import (
    Cell,
    figures,
    grid,
    mb,
    ms,
    number,
    percent,
    short,
    titled,
    us,
)
from shardwright.plan.transfers import Exchange
from shardwright.plan.view import PlanView

_BESIDE = "across islands"
_HEADERS = (
    "\nstage",
    "\ntransfer",
    "\nlink",
    "\nGB/s",
    "per\npass",
    "decode\nMB",
    "\nus each",
    "\nms",
    "prefill\nMB",
    "\nus each",
    "\nms",
)


def communication_table(view: PlanView) -> str:
    """One block for every distinct replica."""
    return titled(
        "Communication in one pass through the stages (GB/s sustained per direction)",
        *(_block(view, group) for group in view.groups),
    )


def _block(view: PlanView, group: ReplicaGroup) -> str:
    replica = group.replica
    found = exchanges(view.anatomy, replica)
    loads = view.anatomy.loads(replica.operating_point)
    head = (
        f"replica {group.label}: {loads.decode.sequences} sequences decode beside "
        f"{number(loads.decode.prompt_tokens)} prompt tokens; a prefill pass has "
        f"{number(loads.prefill.prompt_tokens)}" + _spread(group)
    )
    if not found:
        return f"{head}\n\nOne GPU: nothing is sent."
    rows = [
        [short(label, 9), *cells]
        for label, cells in merged((x.stage, _cells(x)) for x in found)
    ]
    totals = pass_totals(view.anatomy, replica)
    decode, prefill = ms(totals.decode_ns, 3), ms(totals.prefill_ns, 3)
    rows.append(["all", "one pass", *[""] * 5, decode, "", "", prefill])
    share = totals.decode_ns / view.anatomy.loop_ns(replica)
    return (
        f"{head}\n\n{grid(_HEADERS, rows, 'lllrrrrrrrr')}\n\n"
        f"Share of a pass: {percent(share)}" + _notes(found, _apart(group))
    )


def _apart(group: ReplicaGroup) -> bool:
    return any(stage.expert_unit for stage in group.replica.stages)


def _spread(group: ReplicaGroup) -> str:
    """How many attention ranks share the load, where there are several."""
    stages = group.replica.stages
    ranks = {stage.shape.attn_dp for stage in stages}
    groups = grouped(stages)
    if ranks == {1}:
        return (
            "\nAll CP ranks decode all of it; each has its part of the prompts."
            * groups
        )
    words = " or ".join(map(str, sorted(ranks)))
    lies = "context groups" if groups else "attention ranks"
    return f"\nShared by {words} {lies}; a lone prompt's chunk lies on one."


def _notes(found: list[Exchange], apart: bool) -> str:
    """How to read rows that are not all-reduces."""
    notes = []
    if any(x.operation == "all-to-all" for x in found):
        notes.append("All-to-all: MB that one GPU sends.")
    if any(x.operation == _BESIDE for x in found):
        notes.append("Inside and across islands at once; the slower one is the time.")
    words = "\n" + " ".join(notes) if notes else ""
    if not apart:
        return words
    return (
        f"{words}\nDisaggregated stages send beside computing: one pass counts what it "
        "waits for."
    )


def _cells(x: Exchange) -> list[Cell]:
    operation = "" if x.operation in ("hop", "return") else f"{x.operation} "
    if x.operation == _BESIDE:
        operation = "- across: "
    words = f"{operation}{x.what}"
    return [
        short(words.rstrip(), 20),
        short(x.link, 8),
        figures(x.gbyte_per_s) if x.gbyte_per_s else "-",
        str(x.decode.count),
        *_transfer(x, prefill=False),
        *_transfer(x, prefill=True),
    ]


def _transfer(x: Exchange, *, prefill: bool) -> list[Cell]:
    made = x.prefill if prefill else x.decode
    if not made.count:
        return ["-", "-", "-"]
    size = "-" if made.bytes_each is None else mb(made.bytes_each)
    if x.operation == _BESIDE:
        return [size, "-", "-"]
    return [size, us(made.each_ns), ms(made.total_ns, 3)]
