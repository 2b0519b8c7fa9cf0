from __future__ import annotations

import shlex
from collections.abc import Callable

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Invalid
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.names import (
    check_host_name,
    check_instance_name,
    check_interface,
    check_node_name,
    is_host_name,
)

Check = Callable[..., str]
CHECKS: list[Check] = [check_instance_name, check_node_name, check_interface]

# What somebody tries who wants more than a name. No check takes any of them.
EVIL = [
    "", " ", ".", "..", "-", "@", "--help", "-e", "../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "~root",
    "{{ lookup('pipe', 'id') }}", "{{7*7}}@example.com", "{% raw %}@example.com", "{#x#}", "${HOME}", "$(id)",
    "`id`", "a;reboot", "a|sh", "a&b", "a>b", "*", "?", "[a-z]", "a[0:3]", "!a", "&a", "~^a", "a,b", "a:b", "@file",
    "' OR 1=1 --", "a';DROP TABLE instance;--@example.com", 'a"b@example.com', "a b@example.com", "<a@example.com>",
    "a@example.com\n", "\na@example.com", "a\0@example.com", "a@example.com\0", "a@exam\tple.com", "a\x1b[2J",
    "node1\n", "node1 ", " node1", "wg0\n", "\u0430@example.com", "n\u00f6de", "\uff41", "\u0661", "\udc80", "a\u202eb",
    "!unsafe a", "a=b@example.com", "a!b@example.com", "a#b@example.com", "%0a/", "a@example.com%0a",
]  # fmt: skip
NO_TEXT = [None, True, 5, 5.0, b"node1", ["node1"], {"name": "node1"}, object()]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("text", EVIL)
def test_what_is_more_than_a_name_is_refused(check: Check, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        check(text, "the.field")
    assert caught.value.field == "the.field"
    assert str(caught.value).startswith("the.field: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("value", NO_TEXT)
def test_what_is_no_text_is_refused_and_not_repeated(check: Check, value: object) -> None:
    with pytest.raises(Invalid, match=r"^f: is not a text$"):
        check(value, "f")


@pytest.mark.parametrize("check", CHECKS)
@given(text=st.text(max_size=300))
def test_a_message_repeats_little(check: Check, text: str) -> None:
    try:
        said = check(text)
    except Invalid as error:
        said = str(error)
    assert said == text or (said.isprintable() and len(said) < 300)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("text", ["a" * 1_000_000, "a." * 500_000, "a-" * 500_000 + "@", "@" * 1_000_000])
def test_endless_text_is_refused_at_once_in_few_words(check: Check, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        check(text)
    assert len(str(caught.value)) < 300


def test_without_a_field_the_message_names_what_the_name_is_for() -> None:
    for check, field in zip(CHECKS, ("instance", "node", "interface"), strict=True):
        with pytest.raises(Invalid, match=rf"^{field}: "):
            check("")


# ---- instances


@pytest.mark.parametrize(
    "name",
    [
        "user@example.com", "a@b.co", "first.last@example.com", "a+tag@example.com", "50%off@example.com",
        "_a-b%c+d.e@example.com", "9@9.example.com", "User@Example.COM", "a@xn--bcher-kva.example.com",
        "a" * 64 + "@example.com", "a@" + "b" * 63 + ".example.com", "a@" + ("b" * 49 + ".") * 5 + "cc",
        "a@a-b.example.com",
    ],
)  # fmt: skip
def test_e_mail_addresses_are_taken_as_they_are(name: str) -> None:
    assert check_instance_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("user", "there is no @"),
        ("user@", "no host name with a dot"),
        ("user@example", "no host name with a dot"),
        ("user@localhost", "no host name with a dot"),
        ("user@.example.com", "no host name with a dot"),
        ("user@example.com.", "no host name with a dot"),
        ("user@example..com", "no host name with a dot"),
        ("user@-example.com", "no host name with a dot"),
        ("user@example-.com", "no host name with a dot"),
        ("user@exam_ple.com", "no host name with a dot"),
        ("user@10.0.0.1", "no host name with a dot"),
        ("user@[10.0.0.1]", "no host name with a dot"),
        ("user@example.com@example.com", "no host name with a dot"),
        ("@example.com", "before the @"),
        (".user@example.com", "before the @"),
        ("user.@example.com", "before the @"),
        ("us..er@example.com", "before the @"),
        ("-user@example.com", "before the @"),
        ("+user@example.com", "before the @"),
        ("%user@example.com", "before the @"),
        ("a" * 65 + "@example.com", "64 of them before the @"),
        ("a@" + ("b" * 49 + ".") * 5 + "ccc", "longer than an e-mail address may be: 254"),
        ("a@" + "b" * 64 + ".example.com", "no host name with a dot"),
    ],
)
def test_what_is_no_e_mail_address_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_instance_name(name)
    assert why in str(caught.value)


@given(st.from_regex(r"[A-Za-z0-9_.%+@-]{1,40}", fullmatch=True) | st.emails())
def test_an_instance_name_needs_no_quotes_anywhere(text: str) -> None:
    try:
        name = check_instance_name(text)
    except Invalid:
        return
    assert shlex.quote(name) == name
    assert not name.startswith(("-", ".", "%", "+", "@"))
    assert ".." not in name
    assert name.isascii()
    assert not set(name) & set("{}[]()<>'\"`$;|&*?!#~\\/:,= ")


class Marked(str):
    """As Ansible's texts are: with something noted on them."""

    __slots__ = ("origin",)


def test_names_lose_what_ansible_notes_on_them() -> None:
    assert type(check_instance_name(Marked("user@example.com"))) is str
    assert type(check_node_name(Marked("node1"))) is str
    assert type(check_interface(Marked("wg0"))) is str


# ---- nodes and hosts


@pytest.mark.parametrize(
    "name",
    [
        "node1",
        "de1.example.com",
        "DE-1",
        "1",
        "n",
        "all1",
        "a" * 63,
        "10.0.0.1",
        ("a" * 49 + ".") * 5 + "bbb",
    ],
)
def test_host_names_are_taken_as_they_are(name: str) -> None:
    assert check_node_name(name) == check_host_name(name, "f") == name
    assert is_host_name(name)


@pytest.mark.parametrize(
    "name",
    ["-node", "node-", ".node", "node.", "no..de", "a.-b", "a-.b", "no_de", "a" * 64, ("a" * 49 + ".") * 5 + "bbbb"],
)  # fmt: skip
def test_what_is_no_host_name_is_refused(name: str) -> None:
    assert not is_host_name(name)
    for check in (check_node_name, check_host_name):
        with pytest.raises(Invalid, match="is not a host name"):
            check(name, "f")


@pytest.mark.parametrize(
    "name", ["all", "ALL", "ungrouped", "localhost", "Localhost", "127.0.0.1", "nodes", "enabled"]
)
def test_a_node_is_not_called_what_ansible_reads_otherwise(name: str) -> None:
    assert check_host_name(name, "f") == name
    with pytest.raises(Invalid, match=r"^node: '.*' means something else to Ansible$"):
        check_node_name(name)


@given(st.from_regex(r"[A-Za-z0-9.-]{1,20}", fullmatch=True))
def test_a_node_name_as_a_pattern_of_ansible_means_that_node_alone(text: str) -> None:
    try:
        name = check_node_name(text)
    except Invalid:
        return
    inventory = InventoryManager(loader=DataLoader(), sources=["other1,other2,"])
    inventory.add_host(name)
    assert [host.name for host in inventory.get_hosts(pattern=name)] == [name]


# ---- interfaces


@pytest.mark.parametrize("name", ["wg0", "wg1234567890123", "a", "wg-a.b_c"])
def test_interface_names_are_taken_as_they_are(name: str) -> None:
    assert check_interface(name) == name


@pytest.mark.parametrize("name", ["wg12345678901234", ".wg0", "-wg0", "lo", "all", "wg 0", "wg0/1"])
def test_what_the_kernel_or_wg_quick_would_not_take_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match=r"^interface: .* is no interface name"):
        check_interface(name)
