"""The documents' site, which scripts/docs builds out of a copy of the checkout. Nothing in it comes from elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

SITE = Path(__file__).resolve().parent
sys.path.insert(0, str(SITE))

project = "vpnfleet"
author = "vpnfleet contributors"
project_copyright = author
release = yaml.safe_load((SITE.parents[1] / "collection/galaxy.yml").read_text(encoding="utf-8"))["version"]
extensions = ["myst_parser", "sphinx_antsibull_ext", "ansible_labels", "mermaid_blocks"]

root_doc = "docs/index"
# The copy has all of the checkout, so that links to any file of it lead somewhere.
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/**",
    "inventories/*/README.md",
    "collection/README.md",
    "collection/CHANGELOG.rst",
    "collection/roles/*/README.md",
    "reference/**",
]
exclude_patterns = [
    "collections",
    # docs/index.md takes its place.
    "reference/collection/index.rst",
]
# Headings can be linked to, as on a Git host.
myst_heading_anchors = 4
# A block without a language is what a terminal shows.
highlight_language = "none"

html_theme = "furo"
html_title = f"vpnfleet {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
# site.css has them.
antsibull_ext_color_scheme = "none"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "navigation_with_keys": True,
    # The theme's own: there is no repository to name here.
    "footer_icons": [],
}
