"""Build learn2learn from its source distribution with the installed Cython, and install it.

    python benchmarks/build_learn2learn.py

Its release of 2022 brings C files of an old Cython that no Python since 3.10 compiles; they are
made anew. Its dependencies (gym, torchvision) are left out: what we time imports neither.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "0.2.0"


def main() -> None:
    """Fetch, build, install."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)

        def run(*words: str, where: Path = home) -> None:
            subprocess.run([sys.executable, *words], cwd=where, check=True)

        source = ("--no-deps", "--no-binary", ":all:", "--no-build-isolation")
        run("-m", "pip", "download", "-q", *source, f"learn2learn=={VERSION}")
        with tarfile.open(home / f"learn2learn-{VERSION}.tar.gz") as archive:
            archive.extractall(home, filter="data")
        root = home / f"learn2learn-{VERSION}"
        for old in (root / "learn2learn" / "data").glob("*.c"):
            old.unlink()
        # with build_ext among the words, its setup.py runs Cython
        run("setup.py", "-q", "build_ext", "bdist_wheel", where=root)
        (wheel,) = (root / "dist").glob("*.whl")
        run("-m", "pip", "install", "-q", "--no-deps", str(wheel))


if __name__ == "__main__":
    main()
