"""How what is not installed with the rest is added."""

import shlex
import sys


def installs(extra: str) -> str:
    """The command that adds this extra. By the Python that runs this: the `pip` of another one does not know this
    package, and would install whatever else has its name."""
    return f"{shlex.quote(sys.executable)} -m pip install 'tidegate[{extra}]'"
