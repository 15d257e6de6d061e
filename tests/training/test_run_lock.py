"""A model folder takes one run at a time; the lock goes with the process, also with a killed one."""

import subprocess
import sys
import time

import pytest

from mmlphuman.training.run_lock import FILE_NAME, lock_run

HOLD = """
import sys, time
from pathlib import Path
from mmlphuman.training.run_lock import lock_run
lock_run(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match=f"is being trained by process {other.pid} on "):
            lock_run(tmp_path)
    finally:
        other.kill()
        other.wait()
    time.sleep(0.1)
    lock_run(tmp_path)
    assert "process" in (tmp_path / FILE_NAME).read_text()
