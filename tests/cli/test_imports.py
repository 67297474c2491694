"""The command line imports nothing heavy, so that --help and wrong arguments are answered at once."""

import subprocess
import sys

HEAVY = {"torch", "ray", "optuna", "pandas", "pyarrow", "pydantic", "numpy", "rich.live", "plotly", "mlflow"}


def test_the_command_line_imports_nothing_heavy() -> None:
    script = "import sys, search.cli.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not HEAVY & set(loaded.stdout.split())
