"""The contracts of pyproject.toml catch what they are there for: each has been seen broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONTRACTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.mark.parametrize(
    ("module", "breach", "contract"),
    [
        ("limits/bucket.py", "import penstock.scheduler.plan", "A room imports rooms below"),
        ("gateway/__init__.py", "import penstock.sandbox.text", "A room imports rooms below"),
        ("scheduler/plan.py", "import time", "The pure floor"),
        ("providers/base.py", "from os import environ", "The pure floor"),
        ("http/sse.py", "import langgraph.graph", "LangChain is imported by chain workers"),
        ("chains/door.py", "import penstock.chains.worker.runs", "The front starts"),
        ("image/judge.py", "import penstock.config.load", "The image room stands apart"),
        ("app.py", "import penstock.image.check", "Only the command line imports"),
    ],
)
def test_a_breach_is_found(
    root: Path, tmp_path: Path, module: str, breach: str, contract: str
) -> None:
    shutil.copytree(root / "src" / "penstock", tmp_path / "penstock")
    broken = tmp_path / "penstock" / module
    broken.write_text(f"{broken.read_text('utf-8')}\n{breach}\n", "utf-8")
    checked = subprocess.run(
        [sys.executable, "-c", CONTRACTS, "--no-cache", "--config", root / "pyproject.toml"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    verdicts = [line for line in checked.stdout.splitlines() if line.startswith(contract)]

    assert [line.rpartition(" ")[2] for line in verdicts[:1]] == ["BROKEN"], checked.stdout
