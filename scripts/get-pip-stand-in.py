"""Puts pip into the empty virtual environment that runs it, as get-pip.py would.

ansible-test wants a get-pip.py from a server of its own, which a machine without access to it does not reach. It
takes one from its cache where there is one, and scripts/sanity puts this there: Python's own pip installs the version
asked for. Arguments: requirements for pip, and options of get-pip.py that have no meaning here.
"""

from __future__ import annotations

import subprocess
import sys

options_of_get_pip = {"--no-setuptools", "--no-wheel"}
arguments = [argument for argument in sys.argv[1:] if argument not in options_of_get_pip]

subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *arguments], check=True)
