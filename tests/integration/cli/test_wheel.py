"""What is installed from a wheel, without a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_an_installed_penstock_has_its_example_chains_and_commands(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            (
                "from penstock.config.load import load_with_secrets\n"
                "config = load_with_secrets(None).config\n"
                "print(*config.path, *config.chains)"
            ),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        check=True,
        capture_output=True,
        text=True,
    )
    folder, *chains = shown.stdout.split()

    assert folder == str(installed / "penstock" / "examples")
    assert [f"{chain}.py" for chain in sorted(chains)] == sorted(
        file.name for file in Path(folder).glob("*.py")
    )
    entry_points = next(installed.glob("*.dist-info/entry_points.txt")).read_text()
    assert "penstock = penstock.cli.main:main" in entry_points
