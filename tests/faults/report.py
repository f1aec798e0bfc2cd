"""What becomes of each fault, as a table: python tests/faults/report.py [a piece of a name]."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from faults.registry import faults  # noqa: E402
from faults.running import screened  # noqa: E402


def main(piece: str) -> None:
    chosen = [fault for fault in faults() if piece in fault.name]
    with tempfile.TemporaryDirectory() as folder:
        run = screened(chosen, Path(folder))
    rows = right = wrong = 0
    for fault in chosen:
        if fault.name in run.not_possible:
            print(f"not tried  {fault.name}: {run.not_possible[fault.name]}")
            continue
        problems = run.differences(fault)
        rows += len(fault.rows)
        right += not problems
        wrong += bool(problems)
        print(f"{'WRONG' if problems else 'right':10s} {fault.name}")
        print(f"{'':10s}   expected: {'; '.join(map(str, fault.rows)) or 'no row'}")
        print(f"{'':10s}   found:    {'; '.join(run.found(fault.folder)) or 'no row'}")
        for problem in problems:
            print(f"{'':10s}   {problem}")
    print(f"{right + wrong} faults tried, {rows} rows; {right} right, {wrong} wrong")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
