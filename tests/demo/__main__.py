"""The demo from the command line: python -m tests.demo.

Exits with 0 when every step passed, 1 when one did not, 2 without root, 128 and the signal's number when ended.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.demo.playbook import Installed, shown
from tests.demo.report import Report, StepFailed
from tests.demo.screen import Screen
from tests.demo.story import DEVICES, NODES, Story
from tests.lab.fleet import ROOT, Lab
from tests.lab.lock import exclusive
from tests.lab.namespaces import namespaces_of
from tests.lab.signals import Ended, ignore_signals, signals_as_exceptions


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if os.geteuid() != 0:
        print("demo: needs root, as it makes network namespaces: sudo make demo", file=sys.stderr)
        return 2
    directory: Path = options.directory.absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    screen = Screen(sys.stdout)
    screen.say(
        f"vpnfleet demo: {NODES} nodes, {DEVICES} devices, one registry; all changes by playbooks over SSH"
    )
    try:
        # One demo at a time: it begins by taking down what an earlier one may have left.
        with signals_as_exceptions(), exclusive(f"demo-{options.name}"):
            for log in directory.glob("*.log"):
                log.unlink()
            report = Report(directory / "report.json", screen)
            lab = Lab(options.name, NODES, DEVICES)
            story = Story(lab, report, directory, screen.note, options.database, _installed(options))
            code = _run(lab, story, report)
    except Ended as ended:
        return 128 + ended.number
    failed = sum(not step.ok for step in report.steps)
    verdict = (
        "all passed" if report.ok else f"{failed} failed; Ansible's output is in {shown(directory)}/*.log"
    )
    screen.say(f"{len(report.steps)} steps, {verdict}. Report: {shown(directory / 'report.json')}")
    return code


def _run(lab: Lab, story: Story, report: Report) -> int:
    """Tell the story, clean up whatever comes, and return the exit code."""
    ended_by = 0
    try:
        story.tell()
    except Ended as ended:
        ended_by = ended.number
    finally:
        ignore_signals()
        report.step("Take the lab down", lambda: _take_down(lab))
    if ended_by:
        return 128 + ended_by
    report.finish()
    return 0 if report.ok else 1


def _take_down(lab: Lab) -> str:
    lab.down()
    left = namespaces_of(lab.name)
    if left:
        raise StepFailed(f"left behind: {', '.join(left)}")
    return "nothing left behind"


def _installed(options: argparse.Namespace) -> Installed | None:
    if options.ansible_playbook is None:
        return None
    return Installed(options.ansible_playbook, options.collections)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.demo", description="Show vpnfleet at work in the lab."
    )
    parser.add_argument("--name", default="demo", help="the lab's name (default: %(default)s)")
    parser.add_argument(
        "--directory",
        type=Path,
        default=ROOT / "var" / "demo",
        help="where report, logs and inventory go (default: var/demo of the checkout)",
    )
    parser.add_argument(
        "--database",
        help="SQLAlchemy's URL of an empty PostgreSQL database (default: SQLite in the directory)",
    )
    parser.add_argument(
        "--ansible-playbook",
        type=Path,
        metavar="PROGRAM",
        help="run the playbooks of an installed collection by this, by their names, away from the checkout",
    )
    parser.add_argument(
        "--collections",
        type=Path,
        metavar="FOLDER",
        help="where that collection is, unless it is in the environment of the program",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
