"""The fitted constants as calibration files of the catalogue."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import FoldedScalarString
from tabulate import tabulate

from benchmarks.fidelity import constants
from shardwright.ingest import catalogue
from shardwright.schema.base import format_size
from shardwright.schema.cluster import Calibration

_SOURCE = (
    "Joint regularised fit over published serving measurements (docs/fidelity.md), "
    "bounded by physics; tied to other classes where docs/fidelity.md says so. "
    "attention_ramp_tokens, expert_tile_rows: not fitted. Hops, network latency and "
    "share, framework and communicator memory: planning values, not fitted. The three "
    "overheads hold for an instance without engines.yaml and are vLLM's."
)
_ENGINES_SOURCE = (
    "The same fit; NAME-2024 are releases before June 2025 (vLLM's V0 scheduler, "
    "TensorRT-LLM's engine builder). What a release does not pin down is taken from "
    "the engine's present one. An engine that is not listed takes vLLM's."
)


def write(v: dict[str, float], folder: Path | None = None) -> list[Path]:
    """Writes one file per class, engines.yaml and serving.yaml; returns their paths."""
    target = folder or catalogue.root() / "calibration"
    written = []
    for name in catalogue.names("calibration"):
        base = catalogue.calibration(name)
        written.append(dump(target / f"{name}.yaml", _class(base, v)))
    engines = {
        name: _rounded(costs.model_dump())
        for name, costs in constants.engines(v).items()
    }
    written.append(dump(target / "engines.yaml", {
        "engines": engines,
        "source": FoldedScalarString(_ENGINES_SOURCE),
    }))  # fmt: skip
    written.append(dump(target / "serving.yaml", {
        "start_share": _figure(v["client.start_share"]),
        "convoy_share": _figure(v["client.convoy_share"]),
        "source": FoldedScalarString("The same fit: how benchmark clients behave."),
    }))  # fmt: skip
    return written


def _class(base: Calibration, v: dict[str, float]) -> dict[str, Any]:
    fitted = constants.calibration(base, v)
    vllm = constants.engines(v)["vllm"]
    found: dict[str, Any] = {"name": base.name}
    for field in Calibration.model_fields:
        value = getattr(fitted, field)
        if field in ("name", "engines", "source", "confidence"):
            continue
        if field.endswith("_memory_bytes"):
            found[field.removesuffix("_bytes")] = format_size(value)
        elif field in ("layer_overhead_us", "step_overhead_us", "sequence_overhead_us"):
            found[field] = _figure(getattr(vllm, field))
        else:
            found[field] = (
                _rounded(value) if isinstance(value, dict) else _figure(value)
            )
    found["source"] = FoldedScalarString(_SOURCE)
    found["confidence"] = base.confidence
    return found


def _rounded(values: dict[Any, Any]) -> dict[Any, Any]:
    return {k: _figure(x) for k, x in values.items()}


def _figure(value: float) -> float | int:
    """Three significant digits."""
    short = float(f"{value:.3g}")
    return int(short) if short == int(short) else short


def dump(path: Path, content: dict[str, Any]) -> Path:
    """Writes a small YAML file; returns its path."""
    yaml = YAML()
    yaml.width = 88
    yaml.default_flow_style = None
    out = StringIO()
    yaml.dump(content, out)
    path.write_text(out.getvalue(), encoding="utf-8")
    return path


def table(rows: list[list[Any]]) -> str:
    """The constants with prior, bounds and fitted value, as Markdown."""
    heads = ["constant", "prior", "at least", "at most", "fitted", "unit", "meaning"]
    shown = [[n, *(f"{x:.4g}" for x in figures), unit, meaning]
             for n, *figures, unit, meaning in rows]  # fmt: skip
    body = tabulate(shown, heads, tablefmt="github", disable_numparse=True)
    return f"# Fitted end-to-end constants\n\n{body}\n"
