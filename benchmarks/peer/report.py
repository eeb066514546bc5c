"""The comparison as a page and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from benchmarks.experts.report import Bar
from benchmarks.peer.cases import DATA, Answer
from benchmarks.peer.laws import EVERY, OURS, PEERS, SAME, Comparison, Priced

HEADERS = (
    "plan",
    "tokens/s/GPU, our law",
    "TPOT ms",
    "TTFT ms",
    "kept",
    "tokens/s/GPU, peer's law",
    "TPOT ms",
    "TTFT ms",
    "kept",
)
LAWS = DATA / "laws.md"


def bars(found: Sequence[Comparison]) -> list[Bar]:
    """What was asked of every case."""
    return [bar for one in found for bar in _bars(one)]


def page(found: Sequence[Comparison]) -> str:
    """One table per case, its bars, and where the laws differ."""
    return "\n".join([*map(_section, found), LAWS.read_text(encoding="utf-8")])


def _section(one: Comparison) -> str:
    body = tabulate(
        [_row(row) for row in one.rows],
        HEADERS,
        tablefmt="github",
        disable_numparse=True,
        colalign=("left", *["right"] * 8),
    )
    held = [
        f"* {'holds' if bar.holds else 'FALLS SHORT'}: {bar.claim} ({bar.measured})"
        for bar in _bars(one)
    ]
    figures = f"{one.solve_wall_s:.1f} s wall, {one.solve_cpu_s:.1f} s CPU"
    asked = (
        f"Peer: `{one.case.asked}`. Ours: {one.status} in {figures}, tables included. "
        f"The peer's law was asked for {one.tried:,} workers."
    )
    rest = [f"* {name}: {found}" for name, found in sorted(one.versions.items())]
    known = [line for line in rest if "latencies" in line]
    if one.case.apart is not None:
        best = one.case.apart.tokens_per_s_per_gpu
        asked += f" With prefill and decode apart it says {best:.2f} tokens/s/GPU."
    return "\n".join(
        [f"## {one.case.name}", "", asked, "", body, "", *held, *known, ""]
    )


def _row(row: Priced) -> list[str]:
    ours = _cells(row.ours, row.ours_keeps)
    return [row.plan, *ours, *_cells(row.peers, row.peers_keeps)]


def _cells(answer: Answer | None, keeps: bool) -> list[str]:
    if answer is None:
        return ["", "", "", "not expressible"]
    return [
        f"{answer.tokens_per_s_per_gpu:.2f}",
        f"{answer.tpot_ms:.2f}",
        f"{answer.ttft_ms:.1f}",
        "yes" if keeps else "no",
    ]


def _bars(one: Comparison) -> list[Bar]:
    ours, same, peers = one.row(OURS), one.row(SAME), one.row(PEERS)
    every = one.row(EVERY)
    published = one.case.answer.tokens_per_s_per_gpu
    assert ours.ours and same.ours and peers.peers and every.peers
    rivals = [same.ours.tokens_per_s_per_gpu]
    if peers.ours and peers.ours_keeps:
        rivals.append(peers.ours.tokens_per_s_per_gpu)
    value, again = ours.ours.tokens_per_s_per_gpu, peers.peers.tokens_per_s_per_gpu
    return [
        Bar(
            "our optimum is proven, and in our law no plan of the peer beats it",
            f"{one.status}, {value:.2f} against {max(rivals):.2f}",
            one.status == "OPTIMAL" and value >= max(rivals),
        ),
        Bar(
            "its estimator gives its published answer again, within 0.1%",
            f"{again:.3f} against {published:.3f}",
            abs(again / published - 1) < 1e-3,
        ),
        Bar(
            "in its own law, trying every batch is no worse than its answer",
            f"{every.peers.tokens_per_s_per_gpu:.2f} against {published:.2f}",
            every.peers_keeps and every.peers.tokens_per_s_per_gpu >= published - 1e-3,
        ),
    ]


def document(found: Sequence[Comparison], head: dict[str, Any]) -> dict[str, Any]:
    """Everything measured."""
    return {**head, "cases": [asdict(one) for one in found]}
