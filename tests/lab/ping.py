"""Pings whose losses and gaps are exact: counted by sequence number, not taken from ping's summary."""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.lab.errors import LabError
from tests.lab.host import ENVIRONMENT

_REPLY = re.compile(r"\[(\d+\.\d+)\] \d+ bytes from .*\bicmp_seq=(\d+) ")
#: "no answer yet for icmp_seq=7" (ping -O), "From 10.0.0.1 icmp_seq=7 Destination Host Unreachable"
_NO_REPLY = re.compile(r"\bicmp_seq=(\d+)\b")
_SEQUENCE_NUMBERS = 1 << 16


@dataclass(frozen=True)
class PingResult:
    """Packets sent and answered (duplicates count once), and the longest time without an answer, in seconds,
    the time before the first answer and after the last one included."""

    sent: int
    received: int
    longest_gap_seconds: float

    @property
    def lost(self) -> int:
        return self.sent - self.received


class PingLog:
    """What ping has said so far: the packets of which it told the fate, and when answers came."""

    def __init__(self, started: float) -> None:
        self.newest = 0
        self.answered: dict[int, float] = {}
        self._started = started

    def take(self, line: str) -> bool:
        """Take in one line; True when it leaves no packet without an answer behind the newest one."""
        reply = _REPLY.match(line)
        if reply is not None:
            number = self._unwrapped(int(reply[2]))
            self.answered.setdefault(number, float(reply[1]))
            self.newest = max(self.newest, number)
            return number == self.newest
        no_reply = _NO_REPLY.search(line)
        if no_reply is not None:
            self.newest = max(self.newest, self._unwrapped(int(no_reply[1])))
        return False

    def result(self, ended: float, sent: int | None = None) -> PingResult:
        """The sum, given when it ended (seconds since the epoch) and, where known, how many were sent."""
        times = [self._started, *sorted(self.answered.values()), ended]
        gap = max(later - earlier for earlier, later in itertools.pairwise(times))
        return PingResult(self.newest if sent is None else sent, len(self.answered), gap)

    def _unwrapped(self, number: int) -> int:
        """The packet's number, where ping's are 16 bits wide: the one nearest to the newest so far."""
        turns = round((self.newest - number) / _SEQUENCE_NUMBERS)
        return number + turns * _SEQUENCE_NUMBERS


def ping_command(target: str, interval: float) -> list[str]:
    return ["ping", "-n", "-O", "-D", "-i", f"{interval:g}", target]


def ping(enter: Sequence[str], target: str, count: int, interval: float, timeout: float) -> PingResult:
    """Send `count` packets, one each `interval` seconds; wait `timeout` seconds for the last answer."""
    command = [*enter, *ping_command(target, interval), "-c", str(count), "-W", f"{timeout:g}"]
    started = time.time()
    patience = 30 + count * interval + timeout
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=patience)
    ended = time.time()
    _refuse_failure(done.returncode, done.stderr)
    return parse(done.stdout.splitlines(), started, ended, count)


def parse(lines: Iterable[str], started: float, ended: float, sent: int) -> PingResult:
    log = PingLog(started)
    for line in lines:
        log.take(line)
    return log.result(ended, sent)


class RunningPing:
    """A ping that goes on until stop(). `enter` must keep ping's pid the one that Popen gives."""

    def __init__(self, enter: Sequence[str], target: str, interval: float) -> None:
        self._interval = interval
        self._log = PingLog(time.time())
        self._settled = 0
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            [*enter, *ping_command(target, interval)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            start_new_session=True,  # a ^C at the terminal is not for it
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for_reply(self, timeout: float = 10.0) -> bool:
        """Wait for the first answer, say until the tunnel's handshake is done; False when none came."""
        with self._news:
            return self._news.wait_for(lambda: bool(self._log.answered), timeout)

    def stop(self) -> PingResult:
        """End the ping and sum it up.

        It ends right after an answer to the newest packet, so that none is cut off on its way. Where none
        comes for two seconds, what was sent so far is lost, as it looks. Raises LabError when ping failed.
        """
        with self._news:
            before = self._settled
            self._news.wait_for(
                lambda: self._settled > before or self._process.poll() is not None,
                timeout=max(2.0, 3 * self._interval),
            )
            ended = time.time()
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)
        self._reader.join()
        assert self._process.stderr is not None
        with self._process.stderr:
            said = self._process.stderr.read()
        _refuse_failure(self._process.wait(), said)
        return self._log.result(ended)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with self._news:
                    if self._log.take(line):
                        self._settled += 1
                    self._news.notify_all()


def _refuse_failure(code: int, said: str) -> None:
    # 0 and 1: answers came, or none; 2: an error, of which "no way to the target" is but a lost packet.
    if code not in (0, 1) and "unreachable" not in said.lower():
        raise LabError(f"ping ended with {code}: {said.strip()}")
