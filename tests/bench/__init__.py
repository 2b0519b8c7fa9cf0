"""`make bench`: what vpnfleet costs beside the bare work, as ratios."""

import sys

from tests.lab.fleet import ROOT

# Where the collection is importable from, in a checkout.
sys.path.insert(0, str(ROOT / "collections"))
