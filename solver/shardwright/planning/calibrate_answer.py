"""What ``shardwright calibrate`` says: files written, and the errors of every curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardwright.ingest import catalogue
from shardwright.planning.calibrate import calibrate_file, file_yaml, summary
from shardwright.planning.calibrate_measure import measure, write_whole
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.operators import OperatorFile

WIDE_PERCENT = 15.0


@dataclass(frozen=True)
class Calibrated:
    """Curves fitted to a user's measurements, and where they were written."""

    file: OperatorFile
    path: Path

    def document(self) -> dict[str, Any]:
        """As one JSON document."""
        return {
            "gpu": self.file.gpu,
            "written": str(self.path),
            "curves": summary(self.file),
        }

    def text(self) -> str:
        """As a table of at most 100 columns."""
        from tabulate import tabulate

        rows = summary(self.file)
        head = ("operator", "dtype", "rows", "families", "fit %", "held out %", "p90 %")
        cells = [
            (
                f"{r['op']} {r['variant']}".strip(),
                r["dtype"],
                r["rows"],
                r["families"],
                r["fit_%"],
                r["held_out_%"],
                r["held_out_p90_%"],
            )
            for r in rows
        ]
        lines = [
            f"{len(rows)} curves of {self.file.gpu} written to {self.path}",
            "",
            tabulate(cells, head, floatfmt=".1f"),
            "",
            "Absolute percentage errors: median of the fit; median and 90th percentile",
            "of rows held out: families of shapes in up to five parts, each part",
            "predicted by a fit of the others.",
        ]
        return "\n".join(lines + self._doubts(rows))

    def _doubts(self, rows: list[dict[str, Any]]) -> list[str]:
        wide = [r for r in rows if r["held_out_%"] > WIDE_PERCENT]
        return [
            f"Held-out error above {WIDE_PERCENT:g}%: {r['op']} {r['dtype']}. Measure "
            "more shapes, or look for outliers."
            for r in wide
        ]


def calibrated(csv: Path | None, gpu: str | None, output: Path | None) -> Calibrated:
    """Fit the measurements and write the file (default: GPU.operators.yaml).

    Raises InvalidInstance naming row and field, or option, of what it cannot use.
    """
    if csv is None:
        raise _refused("MEASUREMENTS", "nothing", "a CSV file, or --measure")
    if gpu is None:
        raise _refused("--gpu", "nothing", "the GPU type that was measured")
    spec = catalogue.gpu(gpu, "--gpu", "command line")
    file = calibrate_file(csv, spec)
    path = output or Path(f"{gpu}.operators.yaml")
    write_whole(path, file_yaml(file))
    return Calibrated(file, path)


def measured(
    csv: Path | None, output: Path | None, said: Callable[[str], None]
) -> dict[str, Any]:
    """Time operators on this machine and write the CSV; default measurements.csv."""
    if csv is not None:
        raise _refused("--measure", f"{csv} besides", "either measure, or read a file")
    path = output or Path("measurements.csv")
    rows = measure(path, said)
    return {"written": str(path), "rows": rows}


def _refused(field: str, found: str, allowed: str) -> InvalidInstance:
    return InvalidInstance("command line", [FieldError(field, found, allowed)])
