"""Rows of a table of published serving measurements, and what is left out of it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from shardwright.schema.errors import FieldError, InvalidInstance

MODES = ("closed_loop", "static_batch", "offline_max", "poisson", "single_stream")
METRICS = ("tpot", "ttft", "throughput")


@dataclass(frozen=True)
class Worker:
    """Parallel degrees of one replica; ``moe_tp`` None: what ep leaves."""

    tp: int
    pp: int = 1
    attn_dp: int = 1
    ep: int = 1
    moe_tp: int | None = None

    @property
    def gpus(self) -> int:
        """GPUs of the replica."""
        return self.tp * self.pp * self.attn_dp


@dataclass(frozen=True)
class Row:
    """One published run. Latencies in ms, rates in tokens/s; None: not published.

    ``prefill`` is the worker of the prompt pool, with ``prefill_workers`` of them,
    where prompts and decoding run apart. ``mapping_known``: the source says how the
    experts lie on the GPUs; otherwise the row is scored but never fitted. ``sample``:
    the run's identifier in a published validation set. ``repeat``: an earlier row says
    the same of the same deployment and load; scored, but fitted and judged once.
    """

    line: int
    source: str
    date: str
    engine: str
    version: str
    gpu: str
    gpus: int
    model: str
    model_name: str
    weights: str
    kv: str
    worker: Worker
    workers: float
    prefill: Worker | None
    prefill_workers: int
    input_tokens: float
    output_tokens: float
    concurrency: float | None
    rate_per_s: float | None
    mode: str
    moe: bool
    ttft_ms: float | None
    ttft_is_median: bool
    tpot_ms: float | None
    throughput: float | None
    requests: float | None = None
    mapping_known: bool = True
    sample: str | None = None
    repeat: bool = False

    @property
    def group(self) -> tuple[str, str, str]:
        """Source, model, GPU."""
        return self.source, self.model_name, self.gpu

    def measured(self, metric: str) -> float | None:
        """The published figure: ms, or output tokens/s."""
        return {"tpot": self.tpot_ms, "ttft": self.ttft_ms,
                "throughput": self.throughput}[metric]  # fmt: skip


class Skipped(Exception):
    """A row that is not scored; the argument says why."""


@dataclass(frozen=True)
class Table:
    """The rows that are scored, and how many were not, by reason."""

    rows: tuple[Row, ...]
    skipped: dict[str, int]


def columns(path: Path) -> list[str]:
    """Names of the columns of a CSV file. Raises InvalidInstance if unreadable."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            return next(csv.reader(file), [])
    except (OSError, csv.Error) as reason:
        error = FieldError("(file)", str(reason), "a readable CSV file")
        raise InvalidInstance(str(path), [error]) from None


def read_table(path: Path) -> Table:
    """Rows of a CSV file in the layout of the published measurements.

    Near-duplicates (same deployment, lengths and load, figures within 0.5%) are
    marked as repeats.
    """
    rows: list[Row] = []
    skipped: dict[str, int] = {}
    seen: set[tuple[object, ...]] = set()
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        for line, raw in enumerate(csv.DictReader(file), start=2):
            cells = {k: (v or "").strip() for k, v in raw.items() if isinstance(k, str)}
            try:
                row = read_row(cells, line)
            except Skipped as why:
                skipped[str(why)] = skipped.get(str(why), 0) + 1
                continue
            rows.append(replace(row, repeat=(key := _key(row)) in seen))
            seen.add(key)
    return Table(tuple(rows), skipped)


def _key(row: Row) -> tuple[object, ...]:
    figures = (row.tpot_ms, row.ttft_ms, row.throughput)
    rounded = tuple(None if f is None else f"{f:.3g}" for f in figures)
    load = (row.concurrency, row.rate_per_s, row.input_tokens, row.output_tokens)
    # two sources that publish the same run differ in their names for it
    return (row.model_name, row.gpu, row.mode, row.weights, row.worker, load, rounded)


def read_row(cells: dict[str, str], line: int = 0) -> Row:
    """One row. Raises Skipped with an allowed reason."""
    get = cells.get
    note, mode = get("note", ""), get("mode", "")
    if _flag(get("spec_decode", "")):
        raise Skipped("speculative")
    if "AMBIGUOUS" in note:
        raise Skipped("AMBIGUOUS")
    if mode in ("phase_only", "production"):
        raise Skipped("phase_only/production")
    tp, total = _integer(get("tp", "")), _integer(get("n_gpus", ""))
    if tp is None and total != 1:
        raise Skipped("parallel degrees unknown")
    disaggregated = _flag(get("disagg", ""))
    pools = _pools(note) if disaggregated else None
    if disaggregated and pools is None:
        raise Skipped("disaggregated without worker counts")
    worker = pools[2] if pools else _worker(cells, tp or 1, total)
    total = total or worker.gpus
    input_tokens, output_tokens = _lengths(cells, mode)
    ttft, median = _latency(cells, "ttft")
    tpot, _ = _latency(cells, "tpot")
    row = Row(
        line=line,
        source=get("source", ""),
        date=get("date", ""),
        engine=get("engine", ""),
        version=get("engine_version", ""),
        gpu=get("gpu_norm", "") or get("gpu", ""),
        gpus=total,
        model=get("model", ""),
        model_name=get("model_norm", "") or get("model", ""),
        weights=get("weight_dtype", "").lower(),
        kv=get("kv_dtype", "").lower(),
        worker=worker,
        workers=pools[1] if pools else max(total / worker.gpus, 1.0),
        prefill=pools[0][1] if pools else None,
        prefill_workers=pools[0][0] if pools else 0,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        concurrency=_number(get("concurrency_or_batch", "")),
        rate_per_s=_number(get("request_rate", "")),
        mode=mode if mode in MODES else _likely_mode(cells, _requests(note)),
        moe=get("arch", "") == "moe",
        ttft_ms=ttft,
        ttft_is_median=median,
        tpot_ms=tpot if output_tokens > 1 else None,
        throughput=_throughput(cells, input_tokens, output_tokens),
        requests=_requests(note),
        mapping_known="not stated per row" not in note,
        sample=_sample(note),
    )
    return _with_load(row)


def _with_load(row: Row) -> Row:
    """A run whose load is not published is taken as one request at a time."""
    looped = row.mode in ("closed_loop", "static_batch") or row.prefill is not None
    if looped and row.concurrency is None:
        return Row(**{**row.__dict__, "concurrency": 1.0})
    if row.mode == "poisson" and row.rate_per_s is None:
        mode = "offline_max" if row.concurrency is None else "closed_loop"
        return Row(**{**row.__dict__, "mode": mode})
    return row


def _lengths(cells: dict[str, str], mode: str) -> tuple[float, float]:
    """Mean lengths; what is not published: an output like the input, or no prompt."""
    given_in, given_out = _number(cells.get("isl", "")), _number(cells.get("osl", ""))
    output = given_out or given_in or 256.0
    if given_in is not None:
        return max(given_in, 1.0), max(output, 1.0)
    return (1.0 if mode == "single_stream" else output), max(output, 1.0)


def _latency(cells: dict[str, str], metric: str) -> tuple[float | None, bool]:
    median = _number(cells.get(f"{metric}_ms_p50", ""))
    if median:
        return median, True
    return _number(cells.get(f"{metric}_ms_mean", "")) or None, False


def _throughput(cells: dict[str, str], given: float, output: float) -> float | None:
    out = _number(cells.get("out_tok_s_total", ""))
    if out:
        return out
    total = _number(cells.get("total_tok_s", ""))
    return total * output / (given + output) if total else None


def _sample(note: str) -> str | None:
    """The identifier that a validation set gives the run."""
    found = re.search(r"silicon_sample id=([^;]+)", note)
    return found[1].strip() if found else None


def _requests(note: str) -> float | None:
    """How many requests the run had; so many per second or client say nothing."""
    found = re.search(r"\b(\d+)[- ](?:requests?|prompts?)\b(?! per|/)", note)
    found = found or re.search(r"\bnum[_ -]prompts[=: ]+(\d+)", note)
    return _number(found[1]) if found else None


def _likely_mode(cells: dict[str, str], requests: float | None) -> str:
    """How a run of an unheard-of mode was loaded, by what is published of it."""
    if _number(cells.get("concurrency_or_batch", "")) is not None:
        return "closed_loop"
    if _number(cells.get("request_rate", "")) is not None:
        return "poisson"
    return "closed_loop" if requests is None else "offline_max"


def _worker(cells: dict[str, str], tp: int, total: int | None) -> Worker:
    pp = _integer(cells.get("pp", "")) or 1
    dp = _integer(cells.get("dp", "")) or 1
    ep = _integer(cells.get("ep", "")) or 1
    moe = cells.get("arch", "") == "moe"
    found = re.search(r"\bmoe_tp=(\d+)", cells.get("note", ""))
    moe_tp = int(found[1]) if found else None
    if (
        moe
        and pp == 1
        and not cells.get("ep")
        and "enable_attention_dp" in cells.get("note", "")
    ):
        return Worker(1, 1, tp, tp)  # the recipe's way where the row names none
    over_attention = _flag(cells.get("dp_attention", "")) and dp > 1
    if over_attention and tp == dp and total is not None and total % (tp * dp * pp):
        return Worker(1, pp, dp, ep, moe_tp)  # tp is the size of the group
    if over_attention and tp == dp and moe_tp is None:
        return Worker(1, pp, dp, ep)
    if over_attention or (moe and dp > 1 and ep > tp):
        return Worker(tp, pp, dp, ep, moe_tp)
    return Worker(tp, pp, 1, min(ep, tp), moe_tp)


_POOL = re.compile(
    r"(\d+) ?w(?:orkers)? x tp(\d+)(?: pp(\d+))?(?: adp(\d+))?(?: mtp(\d+))?"
    r"(?: mep(\d+))?(?: ep(\d+))?(?: dpattn=(\d))?"
)


def _pools(note: str) -> tuple[tuple[int, Worker], float, Worker] | None:
    parts = [re.search(rf"\b{name}:? {_POOL.pattern}", note) for name in
             ("prefill", "decode")]  # fmt: skip
    if not all(parts):
        return None
    (n, first), (k, second) = (_pool(p) for p in parts if p)
    return ((n, first), float(k), second) if n and k else None


def _pool(found: re.Match[str]) -> tuple[int, Worker]:
    count, tp, pp, adp, mtp, mep, ep, dpattn = (
        None if g is None else int(g) for g in found.groups()
    )
    assert count is not None and tp is not None
    if dpattn:
        return count, Worker(1, pp or 1, tp, ep or 1)
    return count, Worker(tp, pp or 1, adp or 1, mep or ep or 1, mtp)


def _flag(text: str) -> bool:
    return text.lower() in ("1", "1.0", "true", "yes")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < 1e15 else None


def _integer(text: str) -> int | None:
    value = _number(text)
    return int(value) if value is not None and value >= 1 else None


def by_group(rows: tuple[Row, ...]) -> Iterator[tuple[tuple[str, str, str], list[int]]]:
    """Groups in order of their names, with the positions of their rows."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for i, row in enumerate(rows):
        found.setdefault(row.group, []).append(i)
    yield from sorted(found.items())
