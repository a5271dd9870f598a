"""The wheel that `make wheel` built holds all it needs: it is unpacked apart from the repository and
`tenfold` runs from it, with templates, catalogues, scenarios and prices.

python tests/run_wheel.py FOLDER
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

CALLS = (
    "chips --json",
    "models tpu-v1-mlp0",
    "profile tpu-v1-mlp0 --chip tpu-v1,a100-sxm-80 --region us-central1 --html page.html",
    "plan tpu-v1-mlp0 --slo 7ms --rate 1000 --chip t4,tpu-v4i --region us-central1 --html plan.html",
    "simulate steady --html serving.html",
    "lessons envelope",
    "validate tpu-v1",
)
RUN = "import tenfold; print(tenfold.__file__); from tenfold.cli import main; main()"


def main(folder: Path) -> None:
    """Raises SystemExit with what failed."""
    (wheel,) = folder.glob("*.whl")
    home = folder.resolve() / "unpacked"
    zipfile.ZipFile(wheel).extractall(home)
    typed = home / "tenfold" / "py.typed"
    if not typed.exists():
        raise SystemExit(f"{wheel.name} has no py.typed")
    environment = {**os.environ, "PYTHONPATH": str(home)}
    for call in CALLS:
        words = [sys.executable, "-P", "-c", RUN, *call.split()]
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode or not done.stdout.startswith(str(home)):
            raise SystemExit(f"tenfold {call}, from {wheel.name}:\n{done.stdout}{done.stderr}")
    sys.stdout.write(f"{wheel.name}: {len(CALLS)} commands run from it\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
