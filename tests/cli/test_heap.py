import platform
import subprocess
import sys

import pytest

# Between the large buffers stand small ones that live on, so that nothing is free at the heap's end.
PEAK = """
from pathlib import Path
from tidegate.cli import heap

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

heap.keep_large_buffers()
before_mb = resident_mb()
large, small = [], []
for _ in range(400):
    large.append(bytearray(b"x" * 262_144))
    small.append(bytearray(b"x" * 1_024))
peak_mb = resident_mb()
large.clear()
kept_mb = resident_mb()
heap.give_back()
print(before_mb, peak_mb, kept_mb, resident_mb())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_what_a_peak_has_left_of_the_heap_is_kept_until_it_is_given_back() -> None:
    said = subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True).stdout
    before_mb, peak_mb, kept_mb, left_mb = map(float, said.split())
    assert peak_mb > before_mb + 100.0
    assert kept_mb > peak_mb - 10.0
    assert left_mb < before_mb + 10.0
