"""A front as a table, and as a drawing."""

from __future__ import annotations

from html import escape
from math import floor, log10

from shardwright.plan.tables.summary import plan_degrees
from shardwright.plan.tables.text import amount, cut, grid, number, percent, short
from shardwright.planning.pareto import Front, FrontPoint
from shardwright.planning.pareto_axes import Axis


def front_text(front: Front) -> str:
    """One line per plan, the best in the first axis first."""
    if not front.points:
        words = "no plan keeps every rule" if front.complete else "not decided in time"
        return f"{front.instance.name}: no front, {words}"
    proven = sum(point.gap == 0 for point in front.points)
    head = (
        f"{front.instance.name}: {amount(len(front.points), 'plan')} on the front, "
        f"{proven} proven, {amount(front.solves, 'solve')}"
    )
    lines = [head, f"Best {front.optimised.key} for each {front.limited.key}."]
    if front.undecided:
        limits = amount(front.undecided, "limit")
        lines.append(f"{limits} undecided in the time: --time-limit gives more of it.")
    elif not front.complete:
        lines.append("More may lie between: --points asks for more of it.")
    return "\n\n".join(["\n".join(lines), _table(front)])


def _table(front: Front) -> str:
    heads = [*(_heading(one) for one in front.axes), "gap", "plan", "GPUs"]
    heads += ["requests/s", "TPOT\nms", "TTFT\nms", "USD/h"]
    rows = [_cells(front, point) for point in front.points]
    return grid(heads, rows, "rrrlrrrrr")


def _heading(axis: Axis) -> str:
    return axis.key.replace("_per_s", "/s").replace("_per_", "\nper ").replace("_", " ")


def _cells(front: Front, point: FrontPoint) -> list[str]:
    total = point.view.metrics["total"]
    price = total["cost_usd_per_hour"]
    return [
        *(figure_text(value_on(front, point, one)) for one in front.axes),
        "-" if point.gap is None else percent(point.gap, 2),
        short(plan_degrees(point.view), 26),
        number(total["gpus_used"]),
        cut(total["requests_per_s"], 2),
        number(total["tpot_ms"], 2),
        number(total["ttft_ms"], 1),
        "-" if price is None else number(price, 2),
    ]


def value_on(front: Front, point: FrontPoint, axis: Axis) -> float:
    """A point's figure on one of the axes."""
    return point.x if axis == front.optimised else point.y


def figure_text(value: float) -> str:
    """Whole where it is whole, else cut to two decimals."""
    return number(value, 0 if float(value).is_integer() else 2)


_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 720, 440, 76, 60, 40, 150


def front_svg(front: Front) -> str:
    """A drawing by itself: first axis upwards, second to the right."""
    up, right = front.axes
    pairs = [
        (value_on(front, p, right), value_on(front, p, up), plan_degrees(p.view))
        for p in front.points
    ]
    top_x = _round_up(max((x for x, _, _ in pairs), default=1.0))
    top_y = _round_up(max((y for _, y, _ in pairs), default=1.0))

    def place(x: float, y: float) -> tuple[float, float]:
        across, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        return _LEFT + x / top_x * across, _HEIGHT - _BOTTOM - y / top_y * high

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        _text(_LEFT, 22, f"{front.instance.name}: {up.key} against {right.key}"),
    ]
    for k in range(5):
        (x, low), (left, y) = place(top_x * k / 4, 0), place(0, top_y * k / 4)
        end = place(top_x, 0)[0]
        parts.append(_line(left, y, end, y, "#ddd"))
        parts.append(_text(x, low + 18, figure_text(top_x * k / 4), "middle"))
        parts.append(_text(left - 8, y + 4, figure_text(top_y * k / 4), "end"))
    parts.append(_text(place(top_x / 2, 0)[0], _HEIGHT - 16, right.key, "middle"))
    placed = sorted((*place(x, y), words) for x, y, words in pairs)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in placed)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#1f77b4"/>')
    for x, y, words in placed:
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#1f77b4"/>')
        parts.append(_text(x + 7, y - 6, short(words, 24)))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}"/>'


def _round_up(value: float) -> float:
    """The end of an axis: 1, 2 or 5 times a power of ten, or a quarter step of it."""
    if value <= 0:
        return 1.0
    step = 10.0 ** floor(log10(value))
    return next(f * step for f in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if f * step >= value)
