"""Reading, planning, applying, reading back and undoing, on simulated nodes that fail where they are told to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.module_utils import commands, converge, lock
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import Desired
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import (
    InvalidInput,
    WireGuardError,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.report import summary
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import (
    Device,
    InterfaceState,
    Link,
    Unit,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.steps import (
    RunHooks,
    SetAddresses,
    SetMtu,
    SetPeers,
    Step,
    WriteFile,
)
from tests.unit.plugins.module_utils import simulated_interfaces, stand_in_programs
from tests.unit.plugins.module_utils.generated import (
    POOL_SECRETS,
    by_key,
    interface_state,
    key,
    peer,
    private_key,
    public_key_of,
    running,
    wish,
)
from tests.unit.plugins.module_utils.simulated_interfaces import Fleet
from tests.unit.plugins.module_utils.stand_in_programs import StandIns

fleet = simulated_interfaces.fleet
stand_ins = stand_in_programs.stand_ins

GENERATED = 300


def cases() -> Iterator[tuple[int, InterfaceState, Desired]]:
    for number in range(GENERATED):
        rng = Random(number)
        yield number, interface_state(rng), wish(rng, ("present", "present", "disconnected"))


def counts(state: InterfaceState) -> object:
    """What an undone run must have left as it was. Where a device roamed to, a mode that was too open, and a unit
    whose interface had gone away are better than before."""
    device = state.device and (
        dataclasses.replace(state.device, peers={}),
        {name: one[:4] for name, one in state.device.peers.items()},
    )
    link = state.link and (state.link.addresses, state.link.mtu)
    return device, link, state.routes, state.file, state.unit and state.unit.enabled


def test_check_mode_and_real_run_say_the_same_and_the_second_run_nothing(fleet: Fleet) -> None:
    for number, there, desired in cases():
        fleet.has("wg0", there)
        fleet.applied.clear()
        (check,) = converge.converge([desired], check_mode=True)
        assert fleet.applied == []
        assert fleet.nodes["wg0"].state() == dataclasses.replace(
            there, config=fleet.nodes["wg0"].state().config
        )
        (real,) = converge.converge([desired])
        assert (check.steps, check.error) == (real.steps, real.error), f"case {number}"
        if real.error is not None:
            assert fleet.applied == [], f"case {number}"
            continue
        assert [step for _name, step in fleet.applied] == real.steps, f"case {number}"
        (again,) = converge.converge([dataclasses.replace(desired, max_removals=0)])
        assert (again.steps, again.error) == ([], None), f"case {number}"


def test_a_failure_anywhere_is_undone_and_the_next_run_succeeds(fleet: Fleet) -> None:
    failures = 0
    for number, there, desired in cases():
        fleet.has("wg0", there)
        (whole,) = converge.converge([desired], check_mode=True)
        if not whole.steps or whole.error:
            continue
        fails_at = Random(number).randrange(len(whole.steps))
        fleet.fail("wg0", fails_at)
        (outcome,) = converge.converge([desired])
        failures += 1
        assert outcome.error is not None
        assert "No buffer space available (undone: wg0 is as it was before)" in outcome.error, (
            f"case {number}"
        )
        assert counts(fleet.nodes["wg0"].state()) == counts(there), f"case {number}, step {fails_at}"
        assert not any(secret[:32] in outcome.error for secret in POOL_SECRETS)
        assert fleet.fails_at is None
        (outcome,) = converge.converge([desired])
        assert outcome.error is None, f"case {number}"
    assert failures > GENERATED / 3


def test_a_failure_of_the_undoing_is_told(fleet: Fleet) -> None:
    fleet.has("wg0", running(by_key(peer(1))))
    fleet.fail("wg0", 1, for_good=True)
    (outcome,) = converge.converge([Desired("wg0", listen_port=7, mtu=1300)])
    assert outcome.error is not None
    assert "undoing it failed too" in outcome.error
    assert "run again when the cause is mended" in outcome.error


def test_what_the_undoing_leaves_is_told_and_done_by_the_next_run(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = running(by_key(peer(1)))
    fleet.has("wg0", before)

    def stuck(step: Step, name: str, path: str, wanted: object) -> None:
        if step != SetMtu(1420):
            fleet.apply(step, name, path, wanted)

    fleet.fail("wg0", 2)
    with monkeypatch.context() as patch:
        patch.setattr(converge, "apply_step", stuck)
        (outcome,) = converge.converge([Desired("wg0", mtu=1300, addresses=("10.0.0.1/24",))])
    assert [type(step) for step in outcome.steps] == [WriteFile, SetMtu, SetAddresses]
    assert outcome.error is not None
    assert outcome.error.endswith("No buffer space available (undone, but for: set the MTU to 1420)")
    assert lock.unfinished("wg0") == "changing"
    left = fleet.nodes["wg0"].state()
    assert left.link is not None
    assert (left.link.mtu, left.link.addresses, left.file) == (1300, frozenset(), before.file)
    (again,) = converge.converge([Desired("wg0", mtu=1420)])
    assert (again.error, lock.unfinished("wg0")) == (None, "")
    assert fleet.nodes["wg0"].state().link == before.link


def test_what_does_not_stick_is_a_failure_and_undone(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that says yes and does nothing."""
    before = running(by_key(peer(1, "10.0.0.1/32")))
    fleet.has("wg0", before)

    def deaf(step: Step, name: str, path: str, wanted: object) -> None:
        if not isinstance(step, SetPeers):
            fleet.apply(step, name, path, wanted)

    monkeypatch.setattr(converge, "apply_step", deaf)
    (outcome,) = converge.converge([Desired("wg0", peers=by_key(peer(1, "10.0.0.9/32"), peer(2)))])
    assert outcome.error is not None
    assert outcome.error.startswith("read back after applying, wg0 still needs: add 1 peer and update 1 peer")
    assert outcome.error.endswith("(undone: wg0 is as it was before)")
    assert fleet.nodes["wg0"].state() == before


class Killed(BaseException):
    """The run ends here, and nothing of it is undone."""


def killed(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, desired: Desired, before: type[Step]) -> None:
    """Converge until the first step of this kind, and no further."""

    def apply(step: Step, name: str, path: str, wanted: object) -> None:
        if isinstance(step, before):
            raise Killed
        fleet.apply(step, name, path, wanted)

    with monkeypatch.context() as patch:
        patch.setattr(converge, "apply_step", apply)
        with pytest.raises(Killed):
            converge.converge([desired])


def test_an_interface_whose_making_was_killed_gets_its_post_up(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.has("wg0", InterfaceState())
    desired = Desired("wg0", addresses=("10.0.0.1/24",), peers=by_key(peer(1)), post_up=("a", "b"))
    killed(fleet, monkeypatch, desired, before=RunHooks)
    foreseen = converge.converge([desired], check_mode=True)[0]
    assert summary(foreseen.steps) == ["run 2 post_up commands"]
    fleet.fail("wg0", 0)
    assert "undone" in str(converge.converge([desired])[0].error)
    assert converge.converge([desired])[0].steps == foreseen.steps
    assert converge.converge([desired])[0].steps == []


def test_an_endpoint_that_a_killed_run_wrote_down_reaches_wireguard(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = peer(1)._replace(endpoint="192.0.2.1:1")
    fleet.has("wg0", InterfaceState())
    converge.converge([Desired("wg0", peers=by_key(there, peer(2)))])
    desired = Desired("wg0", peers=by_key(there._replace(endpoint="192.0.2.2:2"), peer(2)))
    killed(fleet, monkeypatch, desired, before=SetPeers)
    (outcome,) = converge.converge([desired])
    assert summary(outcome.steps) == ["update 1 peer"]
    device = fleet.nodes["wg0"].state().device
    assert device is not None
    assert device.peers[key(1)].endpoint == "192.0.2.2:2"
    assert converge.converge([desired])[0].steps == []


def test_a_killed_run_that_left_nothing_to_do_is_ended(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.has("wg0", running(by_key(peer(1))))
    converge.converge([Desired("wg0")])
    killed(fleet, monkeypatch, Desired("wg0", mtu=1300), before=SetMtu)
    assert lock.unfinished("wg0") == "changing"
    fleet.nodes["wg0"].apply(SetMtu(1300))
    assert converge.converge([Desired("wg0", mtu=1300)])[0].steps == []
    assert lock.unfinished("wg0") == ""


def test_one_that_is_busy_does_not_hold_up_the_others(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wg0", "wg1"):
        fleet.has(name, running(by_key(peer(1))))
    monkeypatch.setattr(lock, "WAIT", 0.1)
    with lock.locked(["wg0"]):
        busy, served = converge.converge([Desired("wg0", peers={}, max_removals=1), Desired("wg1", mtu=1300)])
    assert busy.error is not None
    assert busy.error.startswith("wg0 has been busy with another run")
    assert served.error is None
    assert {name for name, _step in fleet.applied} == {"wg1"}


def test_one_that_fails_does_not_hold_up_the_others(fleet: Fleet) -> None:
    for number in range(4):
        fleet.has(f"wg{number}", dataclasses.replace(running(by_key(peer(number))), file=None, config=None))
    fleet.fail("wg1", 0, for_good=True)
    wanted = [Desired(f"wg{number}", peers=by_key(peer(number), peer(99))) for number in range(3)]
    wanted.append(Desired("wg3", peers={}))  # refused
    outcomes = converge.converge(wanted)
    assert [outcome.error is None for outcome in outcomes] == [True, False, True, False]
    for number in (0, 2):
        assert key(99) in fleet.nodes[f"wg{number}"].state().device.peers  # type: ignore[union-attr]
    assert {name for name, _step in fleet.applied if name == "wg3"} == set()


OWN, OTHER = public_key_of(private_key(1)), public_key_of(private_key(2))
THERE = running(by_key(peer(1)), addresses=["10.0.0.1/24"])
FILE_ALONE = dataclasses.replace(THERE, device=None, link=None)
WITHOUT_FILE = dataclasses.replace(THERE, file=None, config=None)
HALF_MADE = dataclasses.replace(
    THERE, device=Device(None, None, 0, 0, {}), link=Link(False, 1420, frozenset())
)
NO_KEY = dataclasses.replace(HALF_MADE, file=None, config=None)


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("there", [THERE, FILE_ALONE, WITHOUT_FILE, HALF_MADE])
def test_what_has_another_key_is_not_taken_over(
    fleet: Fleet, there: InterfaceState, check_mode: bool
) -> None:
    fleet.has("wg7", there)
    fleet.has("wg8", THERE)
    wanted = Desired("wg7", private_key=private_key(2), public_key=OTHER, peers={}, max_removals=9)
    refused, served = converge.converge([wanted, Desired("wg8", public_key=OWN, mtu=1300)], check_mode)
    assert refused.error == (
        "wg7 is there already with another key; it belongs to somebody else and is left as it is: "
        "use another name, or remove the interface and /etc/wireguard/wg7.conf if nobody needs them"
    )
    assert (refused.steps, refused.warning) == ([], None)
    assert fleet.nodes["wg7"].now == there
    assert {name for name, _step in fleet.applied} == (set() if check_mode else {"wg8"})
    assert (served.error, served.warning) == (None, None)
    assert summary(served.steps) == ["rewrite the config file", "set the MTU to 1300"]


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("state", ["disconnected", "absent"])
@pytest.mark.parametrize("there", [THERE, FILE_ALONE, WITHOUT_FILE, HALF_MADE])
def test_what_has_another_key_is_not_removed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, there: InterfaceState, state: str, check_mode: bool
) -> None:
    monkeypatch.setattr(converge, "forget", lambda _desired: pytest.fail("traces were removed"))
    fleet.has("wg7", dataclasses.replace(there, unit=Unit(enabled=True, active=True)))
    before = fleet.nodes["wg7"].now
    (outcome,) = converge.converge([Desired("wg7", state=state, public_key=OTHER)], check_mode)
    assert outcome.warning == "wg7 has another key than the one given and is left alone"
    assert (outcome.error, outcome.steps, fleet.applied) == (None, [], [])
    assert outcome.before == outcome.wanted == fleet.nodes["wg7"].now == before


@pytest.mark.parametrize("state", ["present", "disconnected", "absent"])
@pytest.mark.parametrize("there", [THERE, FILE_ALONE, WITHOUT_FILE, HALF_MADE, NO_KEY, InterfaceState()])
def test_what_has_our_key_or_none_is_ours(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, there: InterfaceState, state: str
) -> None:
    monkeypatch.setattr(converge, "forget", lambda _desired: None)
    fleet.has("wg7", there)
    private = private_key(1) if state == "present" else None
    wanted = Desired("wg7", state=state, private_key=private, public_key=OWN)
    (outcome,) = converge.converge([wanted])
    assert (outcome.error, outcome.warning) == (None, None)
    device = fleet.nodes["wg7"].now.device
    assert (device.public_key if device else None) == (OWN if state == "present" else None)
    (again,) = converge.converge([wanted])
    assert (again.steps, again.error, again.warning) == ([], None, None)


def test_naming_the_right_key_changes_nothing_and_naming_another_stops_all(fleet: Fleet) -> None:
    compared = 0
    for number, there, desired in cases():
        fleet.has("wg0", there)
        there = fleet.nodes["wg0"].state()
        holder = there.device or there.config
        private = holder.private_key if holder else None
        if private is None:
            continue
        compared += 1
        # The key there may be asked for or left open; one that is to be changed is another one's.
        plain = dataclasses.replace(desired, private_key=desired.private_key and private)
        named = dataclasses.replace(plain, public_key=public_key_of(private))
        (without,) = converge.converge([plain], check_mode=True)
        (right,) = converge.converge([named], check_mode=True)
        assert (right.steps, right.error, right.warning) == (without.steps, without.error, None), number
        (wrong,) = converge.converge([dataclasses.replace(plain, public_key=key(5))])
        assert wrong.steps == []
        assert bool(wrong.error) is (desired.state == "present"), number
        assert bool(wrong.warning) is (desired.state != "present"), number
        assert fleet.nodes["wg0"].state() == there
    assert fleet.applied == []
    assert compared > GENERATED / 2


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ([Desired("wg0"), Desired("wg1"), Desired("wg0")], "instances[2].name"),
        ([Desired("wg0", listen_port=5), Desired("wg1", listen_port=5)], "instances[1].listen_port"),
    ],
)
def test_a_call_that_contradicts_itself_does_nothing(fleet: Fleet, wanted: list[Desired], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        converge.converge(wanted)
    assert caught.value.field == field
    assert fleet.applied == []


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("holder", ["wg7", "another program"])
def test_a_port_in_use_is_refused_before_anything_is_done(
    fleet: Fleet, check_mode: bool, holder: str
) -> None:
    fleet.has("wg0", running())
    if holder == "wg7":
        fleet.ports["wg7"] = 7
    else:
        fleet.taken.add(7)
    (outcome,) = converge.converge([Desired("wg0", listen_port=7)], check_mode)
    assert outcome.error == f"listen_port 7 of wg0 is in use by {holder} on this node"
    assert fleet.applied == []


def test_the_own_port_is_not_in_use_by_another(fleet: Fleet) -> None:
    fleet.has("wg0", running())
    fleet.ports["wg0"] = 51820
    fleet.taken.add(51820)
    (outcome,) = converge.converge([Desired("wg0", private_key=private_key(2))])
    assert outcome.error is None
    assert summary(outcome.steps) == ["rewrite the config file", "set private key"]


def test_check_mode_on_a_node_without_wireguard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the above: the real functions, on a node where there is no program at all."""
    monkeypatch.setattr(commands, "SEARCH_PATH", str(tmp_path))
    (outcome,) = converge.converge([Desired("wg0", config_dir=str(tmp_path / "etc"))], check_mode=True)
    assert outcome.error is None
    assert "create the interface" in summary(outcome.steps)
    assert list(tmp_path.iterdir()) == []


def test_a_run_on_a_node_without_wireguard_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "SEARCH_PATH", str(tmp_path))
    monkeypatch.setattr(lock, "FOLDER", str(tmp_path / "lock"))
    with pytest.raises(WireGuardError, match=r"^wg is not on this node: install wireguard-tools"):
        converge.converge([Desired("wg0", private_key=private_key(1), config_dir=str(tmp_path / "etc"))])
    assert not (tmp_path / "etc").exists()


def half_a_dump(*told: int) -> InterfaceState:
    """These peers are told of, and the file has one more."""
    there = running(by_key(*(peer(number) for number in (*told, max(told) + 1))))
    assert there.device is not None
    peers = by_key(*(peer(number) for number in told))
    return dataclasses.replace(there, device=dataclasses.replace(there.device, peers=peers))


@pytest.mark.parametrize("check_mode", [True, False])
def test_nothing_that_stays_as_it_is_found_is_taken_from_half_a_dump(fleet: Fleet, check_mode: bool) -> None:
    for name in ("wg0", "wg1"):
        fleet.has(name, half_a_dump(1, 2))
    for name in ("wg2", "wg3", "wg4"):
        fleet.has(name, running(by_key(peer(1), peer(2))))
    fleet.cut_short = {"wg0", "wg1", "wg2", "wg3", "wg4"}
    before = {name: node.now for name, node in fleet.nodes.items()}
    wanted = [
        Desired("wg0", mtu=1300),
        Desired("wg1", peers=by_key(peer(3)), purge_peers=False),
        # Whose file tells of the same, whose peers are all told, or are to be gone, and who has nothing to do, need no
        # second look.
        Desired("wg2", peers=by_key(peer(1), peer(2)), mtu=1300),
        Desired("wg3", state="absent"),
        Desired("wg4"),
    ]
    outcomes = {one.desired.name: one for one in converge.converge(wanted, check_mode)}
    assert [name for name, one in outcomes.items() if one.error] == ["wg0", "wg1"]
    assert fleet.read_twice == ["wg0", "wg1"]
    assert {fleet.nodes[name].now == before[name] for name in ("wg0", "wg1")} == {True}
    assert not [name for name, _step in fleet.applied if name in ("wg0", "wg1")]


def test_what_is_worked_out_from_half_a_dump_is_refused(fleet: Fleet) -> None:
    fleet.has("wg0", half_a_dump(1, 2))
    fleet.cut_short = {"wg0"}

    def edit(desired: Desired, _actual: InterfaceState) -> Desired:
        return dataclasses.replace(desired, peers=by_key(peer(1)), max_removals=2)

    (outcome,) = converge.converge([Desired("wg0")], False, edit)
    assert outcome.error == "wg show peers names others"
    assert fleet.applied == []


@pytest.mark.parametrize("check_mode", [True, False])
def test_an_edit_that_finds_nothing_to_do_leaves_all_as_it_is(fleet: Fleet, check_mode: bool) -> None:
    """Even what an unfinished run has begun: that is for those to end who ask for something."""
    there = running(by_key(peer(1)))
    fleet.has("wg0", there)
    with lock.locked(["wg0"]):
        lock.begin("wg0", "changing")
    (outcome,) = converge.converge([Desired("wg0", mtu=1300)], check_mode, lambda _desired, _actual: None)
    assert (outcome.error, outcome.steps, fleet.applied) == (None, [], [])
    assert outcome.before == outcome.wanted == dataclasses.replace(there, unfinished="changing")
    assert lock.unfinished("wg0") == "changing"


@pytest.mark.parametrize("with_systemd", [True, False])
def test_an_interface_that_is_gone_leaves_no_traces(
    stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch, with_systemd: bool
) -> None:
    monkeypatch.setattr(lock, "FOLDER", str(stand_ins.root / "lock"))
    if with_systemd:
        stand_ins.with_systemd(monkeypatch)
        (stand_ins.root / "RUNTIME" / "wg-quick@wg0.service.d").mkdir()
    folder = stand_ins.root / "etc"
    folder.mkdir()
    for name in ("wg0.conf", ".wg0.conf.vpnfleet-new", "wg1.conf"):
        (folder / name).write_text("[Interface]\n")
    for config_dir in (folder, stand_ins.root / "nowhere"):
        with lock.locked(["wg0", "wg1"]):
            converge.forget(Desired("wg0", config_dir=str(config_dir)))
        assert [path.name for path in (stand_ins.root / "lock").iterdir()] == ["wg1.lock"]
    assert [path.name for path in folder.iterdir()] == ["wg1.conf"]
    assert not (stand_ins.root / "nowhere").exists()
    if with_systemd:
        assert list((stand_ins.root / "RUNTIME").iterdir()) == []
    assert stand_ins.calls() == ["systemctl daemon-reload"] * with_systemd
