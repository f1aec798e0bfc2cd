"""What can go wrong in a night, made to go wrong on purpose, with a seed.

python benchmarks/night_faults.py fuzz --files 5000 --seed 7
python benchmarks/night_faults.py kill --studies 300 --kills 100 --seed 7
python benchmarks/night_faults.py memory --studies 2000
python benchmarks/night_faults.py disk
"""

from __future__ import annotations

import faults_disk
import faults_fuzz
import faults_kill
import faults_memory
import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)
app.command("fuzz")(faults_fuzz.main)
app.command("kill")(faults_kill.main)
app.command("memory")(faults_memory.main)
app.command("disk")(faults_disk.main)

if __name__ == "__main__":
    app()
