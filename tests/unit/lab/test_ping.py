"""What ping's lines are read as. The lines are those of iputils' `ping -n -O -D`."""

from __future__ import annotations

from tests.lab.ping import PingLog, parse

HEAD = "PING 10.66.0.1 (10.66.0.1) 56(84) bytes of data."


def _reply(time: float, number: int, more: str = "") -> str:
    return f"[{time:.6f}] 64 bytes from 10.66.0.1: icmp_seq={number} ttl=64 time=0.428 ms{more}"


def _no_answer(time: float, number: int) -> str:
    return f"[{time:.6f}] no answer yet for icmp_seq={number}"


def test_all_answered() -> None:
    result = parse([HEAD, _reply(100.1, 1), _reply(100.3, 2), _reply(100.4, 3)], 100.0, 100.5, sent=3)
    assert (result.sent, result.received, result.lost) == (3, 3, 0)
    assert round(result.longest_gap_seconds, 6) == 0.2


def test_the_gap_counts_from_the_start_and_to_the_end() -> None:
    assert round(parse([_reply(103.0, 1)], 100.0, 104.0, sent=1).longest_gap_seconds, 6) == 3.0
    assert round(parse([_reply(101.0, 1)], 100.0, 104.0, sent=1).longest_gap_seconds, 6) == 3.0
    assert parse([HEAD], 100.0, 104.0, sent=5).longest_gap_seconds == 4.0


def test_a_late_answer_is_no_loss_and_a_duplicate_no_second_answer() -> None:
    lines = [
        _reply(100.0, 1),
        _no_answer(100.3, 2),
        _reply(100.3, 3),
        _reply(100.4, 2),
        _reply(100.5, 3, " (DUP!)"),
    ]
    result = parse(lines, 100.0, 100.5, sent=3)
    assert (result.received, result.lost) == (3, 0)


def test_an_unreachable_target_is_a_loss() -> None:
    lines = [HEAD, "[100.200000] From 10.66.0.9 icmp_seq=1 Destination Host Unreachable", _reply(100.4, 2)]
    result = parse(lines, 100.0, 100.4, sent=2)
    assert (result.received, result.lost) == (1, 1)


def test_ipv6_replies() -> None:
    line = "[100.100000] 64 bytes from fd66::1: icmp_seq=1 ttl=64 time=1.20 ms"
    assert parse([line], 100.0, 100.2, sent=1).received == 1


def test_a_running_ping_counts_packets_whose_fate_is_known() -> None:
    log = PingLog(100.0)
    assert not log.take(HEAD)
    assert log.take(_reply(100.1, 1))
    assert not log.take(_no_answer(100.3, 2))
    assert not log.take("ping: sendmsg: Network is unreachable")
    assert log.result(100.4).sent == 2
    assert log.take(_reply(100.5, 3))
    assert not log.take(_reply(100.6, 2))
    assert (log.result(100.7).sent, log.result(100.7).lost) == (3, 0)


def test_sequence_numbers_go_on_after_65535() -> None:
    log = PingLog(0.0)
    for number in range(1, 140_000):
        if number != 70_000:
            log.take(_reply(number / 20, number % 65536))
    result = log.result(7000.0)
    assert (result.sent, result.received, result.lost) == (139_999, 139_998, 1)
