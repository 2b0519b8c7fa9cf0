# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the page with the drift of a fleet looks: light or dark, wide, on a phone and on paper; and what it may load."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fff; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --band: #f6f8fa; --link: #0a58ca;
  --good: #1a6e34; --bad: #9a3b00; --lost: #b3161b; --is: #fff1e6; --should: #e9f6ec;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --ink: #e4e8ec; --soft: #a3adb8; --line: #3a424b; --band: #1d2228; --link: #7db3ff;
    --good: #6fcf8a; --bad: #ffad70; --lost: #ff8f8f; --is: #3a2718; --should: #183022;
  }
}
* { box-sizing: border-box }
body {
  margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 76rem;
  background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 0; overflow-wrap: anywhere }
h3 { font-size: 1rem; margin: 1.5rem 0 .1rem }
p { margin: .35rem 0; max-width: 62rem; overflow-wrap: anywhere }
a { color: var(--link) }
a:focus-visible { outline: 3px solid var(--link); outline-offset: 2px }
.soft, caption { color: var(--soft) }
.good { color: var(--good) } .bad { color: var(--bad) } .lost { color: var(--lost) }
.good, .bad, .lost { font-weight: 600 }
td .good, td .bad, td .lost { white-space: nowrap }
code, .key { font: .875em/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere }
pre {
  margin: .5rem 0; padding: .7rem .9rem; max-width: 100%; overflow-x: auto;
  background: var(--band); border: 1px solid var(--line); border-radius: 6px;
}
pre code { overflow-wrap: normal }
.numbers { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0 }
.numbers div {
  flex: 1 1 7.5rem; padding: .6rem .85rem; background: var(--band); border: 1px solid var(--line); border-radius: 8px;
}
.numbers dt { color: var(--soft); font-size: .875rem; line-height: 1.3 }
.numbers dd { margin: 0; font-size: 1.55rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums }
section { margin-top: 2.25rem; padding-top: 1.25rem; border-top: 2px solid var(--line) }
section:target h2 { text-decoration: underline; text-underline-offset: .3em }
table { width: 100%; margin: .5rem 0; border-collapse: collapse; font-size: .9375rem }
caption { text-align: left; padding-bottom: .3rem }
th, td { padding: .45rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
thead th { background: var(--band); font-size: .8125rem; white-space: nowrap }
tbody th { font-weight: 600; overflow-wrap: anywhere; min-width: 9rem }
td { overflow-wrap: anywhere }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.zero { color: var(--soft) }
td.is { background: var(--is) } td.should { background: var(--should) }
.name { display: block; font-weight: 400 }
.more { padding: .45rem .6rem; background: var(--band); border-left: 4px solid var(--bad) }
@media (max-width: 44rem) {
  body { padding: 1rem .85rem 3rem }
  .numbers div { flex-basis: 40% }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
  table, tbody, caption { display: block }
  tr { display: block; margin: 0 0 .75rem; border: 1px solid var(--line); border-radius: 6px; overflow: hidden }
  th, td, .number { display: block; text-align: left; white-space: normal }
  tbody th { background: var(--band) }
  td, td.number { display: grid; grid-template-columns: 7.5rem minmax(0, 1fr); gap: .6rem }
  td::before { content: attr(data-is); color: var(--soft) }
  td.zero { display: none }
  tr > :last-child { border-bottom: 0 }
}
@media print {
  :root {
    color-scheme: light;
    --page: #fff; --ink: #000; --soft: #444; --line: #999; --band: #fff; --link: #000; --is: #fff; --should: #fff;
    --good: #000; --bad: #000; --lost: #000;
  }
  body { max-width: none; padding: 0; font-size: 10pt }
  table { font-size: 8.5pt }
  th, td { padding: 2pt 4pt }
  thead th { font-size: 8pt }
  tr, .numbers div, pre { break-inside: avoid }
  h2, h3 { break-after: avoid }
  pre { white-space: pre-wrap }
}
"""
# By its sum: no other style, and no script, is taken from whatever else might be in the page.
POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'"
)
