"""The same seed gives the same journal, byte for byte, whatever Python does with its hashes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import hashlib, msgspec
from tests.properties.storm import Storm
digest = hashlib.sha256()
for seed in range(6):
    for line in Storm(seed).run(250).lines:
        digest.update(msgspec.json.encode(line))
print(digest.hexdigest())
"""


def digest(hash_seed: int) -> str:
    env = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout


def test_two_hash_seeds_give_one_journal() -> None:
    assert digest(1) == digest(20_261_124)
