"""One process at a time works in a folder; what a killed one left behind is no lock."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from quickstudy.core import CheckpointError
from quickstudy.storage.run_lock import LOCK, locked, refuse_locked

HOLD = """
import sys, time
from pathlib import Path
from quickstudy.storage.run_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_named_and_a_killed_one_is_no_obstacle(tmp_path):
    process = holder(tmp_path / "run")
    try:
        for attempt in (lambda: refuse_locked(tmp_path / "run"), lambda: enter(tmp_path / "run")):
            with pytest.raises(CheckpointError, match=rf"by process {process.pid} since \d{{4}}-"):
                attempt()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert (tmp_path / "run" / LOCK).exists()  # left behind
    enter(tmp_path / "run")
    assert not (tmp_path / "run" / LOCK).exists()


def enter(folder: Path) -> None:
    with locked(folder):
        pass


def test_a_thread_of_the_same_process_is_refused_too(tmp_path):
    with locked(tmp_path), pytest.raises(CheckpointError, match=f"process {os.getpid()}"):
        enter(tmp_path)
    enter(tmp_path)


def test_only_one_of_many_works_at_a_time(tmp_path):
    inside, most, done = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, done
        for _ in range(200):
            try:
                with locked(tmp_path / "run"):
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0)
                    inside -= 1
                    done += 1
            except CheckpointError:
                continue

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert done


def test_an_empty_folder_is_taken_away_again_and_a_full_one_is_not(tmp_path):
    enter(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with locked(tmp_path / "kept"):
        (tmp_path / "kept" / "a").write_text("x")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["a"]


def test_a_damaged_lock_file_is_no_obstacle(tmp_path):
    (tmp_path / LOCK).write_bytes(b"\xff{")
    enter(tmp_path)
    with locked(tmp_path):
        (tmp_path / LOCK).write_text("[]")
        with pytest.raises(CheckpointError, match="by another process"):
            enter(tmp_path)
