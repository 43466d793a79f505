import os
import subprocess
import sys
from pathlib import Path


def test_the_module_runs_the_command():
    source = str(Path(__file__).parents[1] / "src")
    done = subprocess.run(
        [sys.executable, "-m", "vibnet", "recipes"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
        check=True,
    )
    assert "digits-mlp" in done.stdout
