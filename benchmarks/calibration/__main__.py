"""Refit all operator curves and write the catalogue's files, or check them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tabulate import tabulate

from shardwright.ingest.catalogue import root
from shardwright.ingest.operators import load_operators
from shardwright.planning.calibrate import file_yaml
from shardwright.planning.calibrate_fit import FOLDS, SEED
from shardwright.schema.operators import OperatorCurve, OperatorFile, curve_key

from .fits import Fit, all_fits, files, scatter_percent

AGREE_PERCENT = 0.5
"""Linear algebra differs between machines; a fit may move its errors by this."""

PROTOCOL = f"""Held out: whole families of shapes (column "held out by"), shuffled with
seed {SEED} and dealt to {FOLDS} folds; every row is predicted by a fit that saw no row
of its family. Errors are absolute percentage errors, medians unless p90. "other" holds
out model shapes (hidden+top_k+experts) instead. Target: 10%; MoE and 8-bit GEMM 15%."""


def main() -> int:
    """0 if every shipped curve meets its target and the files agree, 5 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--gpu", default=None, help="print one GPU type only")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    asked = parser.parse_args()
    fits = all_fits()
    missed = [f for f in fits if f.shipped and not f.holds]
    verdict = _verdict(fits, missed)
    shown = _table([f for f in fits if asked.gpu in (None, f.gpu)], "simple")
    print(f"{PROTOCOL}\n\n{shown}\n\n{verdict}")
    made = files(fits)
    if not asked.check:
        _write(made)
        text = (
            f"# Operator curves\n\n    python -m benchmarks.calibration\n\n{PROTOCOL}"
        )
        table = _table(fits, "github")
        page = asked.out / "calibration.md"
        page.write_text(f"{text}\n\n{table}\n\n{verdict}\n", encoding="utf-8")
        return 5 if missed else 0
    differences = _differences(made)
    print("\n".join(differences) or "the shipped files are those of this fit")
    return 5 if missed or differences else 0


def _verdict(fits: list[Fit], missed: list[Fit]) -> str:
    """How many shipped curves meet their target, and why the others cannot."""
    shipped = sum(f.shipped for f in fits)
    lines = [f"{shipped - len(missed)} of {shipped} shipped curves meet their target."]
    for fit in [*missed, *(f for f in fits if not f.shipped)]:
        scatter = scatter_percent(fit.fit.table)
        lines.append(
            f"* {fit.gpu} {fit.fit.table.key}: "
            f"{'missed' if fit.shipped else 'not shipped'}; a row lies {scatter:.0f}% "
            "from the mean of its neighbours in size"
        )
    return "\n".join(lines)


def _table(fits: list[Fit], style: str) -> str:
    rows = []
    for fit in fits:
        curve, key = fit.fit.curve, fit.fit.table.key
        verdict = "holds" if fit.holds else "misses"
        other = "" if fit.by_shape_percent is None else f"{fit.by_shape_percent:.1f}"
        rows.append((
            fit.gpu, key.family, key.variant, key.dtype, curve.rows,
            len(curve.parameters), curve.fit_median_ape_percent,
            curve.held_out.median_ape_percent, curve.held_out.p90_ape_percent, other,
            "+".join(curve.held_out.by), curve.held_out.families,
            verdict if fit.shipped else "scatter",
        ))  # fmt: skip
    head = ("GPU", "operator", "variant", "dtype", "rows", "par", "fit %", "held %",
            "p90 %", "other %", "held out by", "fam", "verdict")  # fmt: skip
    return tabulate(rows, head, tablefmt=style, floatfmt=".1f")


def _write(made: dict[str, OperatorFile]) -> None:
    for gpu, file in made.items():
        text, path = file_yaml(file), _path(gpu)
        same = path.is_file() and path.read_text(encoding="utf-8") == text
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {'unchanged' if same else 'written'}")


def _path(gpu: str) -> Path:
    return root() / "calibration" / "operators" / f"{gpu}.yaml"


def _differences(made: dict[str, OperatorFile]) -> list[str]:
    """Shipped curves that are missing, superfluous, or whose errors are not these."""
    found = []
    for gpu, file in made.items():
        shipped = {curve_key(c): c for c in load_operators(_path(gpu)).curves}
        fitted = {curve_key(c): c for c in file.curves}
        for key in sorted(shipped.keys() ^ fitted.keys()):
            found.append(f"{gpu} {' '.join(key)}: only in the " + (
                "files" if key in shipped else "fit"
            ))  # fmt: skip
        for key in sorted(shipped.keys() & fitted.keys()):
            apart = _apart_percent(shipped[key], fitted[key])
            if apart > AGREE_PERCENT:
                found.append(f"{gpu} {' '.join(key)}: errors differ by {apart:.1f}")
    return found


def _apart_percent(one: OperatorCurve, other: OperatorCurve) -> float:
    """Percentage points between what two fits of a curve claim."""
    if one.form != other.form or one.rows != other.rows:
        return 100.0
    return max(
        abs(one.fit_median_ape_percent - other.fit_median_ape_percent),
        abs(one.held_out.median_ape_percent - other.held_out.median_ape_percent),
    )


if __name__ == "__main__":
    sys.exit(main())
