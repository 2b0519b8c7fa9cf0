"""What ip and wg print on a node with a few interfaces."""

from __future__ import annotations

from tests.unit.plugins.module_utils.generated import private_key, public_key_of

ADDRESSES = [
    {},
    {"ifindex": 3, "flags": ["UP"], "mtu": 1500},
    {
        "ifname": "lo",
        "flags": ["LOOPBACK", "UP"],
        "mtu": 65536,
        "addr_info": [{"local": "127.0.0.1", "prefixlen": 8}],
    },
    {"ifname": "eth0", "flags": ["BROADCAST", "UP"], "mtu": 1500, "addr_info": []},
    {
        "ifname": "wg0",
        "flags": ["POINTOPOINT", "NOARP", "UP", "LOWER_UP"],
        "mtu": 1420,
        "linkinfo": {"info_kind": "wireguard"},
        "addr_info": [{"local": "10.0.0.1", "prefixlen": 24}, {"local": "fd00::1", "prefixlen": 64}, {}],
    },
    {
        "ifname": "wg1",
        "flags": ["POINTOPOINT"],
        "mtu": 1380,
        "linkinfo": {"info_kind": "tun"},
        "addr_info": [],
    },
    {"ifname": "tap9", "flags": [], "mtu": 1500, "linkinfo": {"info_kind": "tun"}, "addr_info": []},
    {"ifname": "wg5", "flags": [], "mtu": 1500, "linkinfo": {"info_kind": "dummy"}, "addr_info": []},
]
ROUTES_4 = [
    {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0", "protocol": "static"},
    {"dst": "10.0.0.0/24", "dev": "wg0", "protocol": "kernel"},
    {"dst": "10.9.0.0/16", "dev": "wg0", "protocol": "boot"},
    {"dst": "10.8.0.1", "dev": "wg0", "table": "51820"},
    {"dst": "default", "dev": "wg0", "table": 77},
    {"dst": "10.7.0.0/16", "nexthops": []},
]
ROUTES_6 = [
    {"dst": "fd09::/64", "dev": "wg0"},
    {"dst": "fd08::1", "dev": "wg0"},
    {"dst": "default", "dev": "wg0"},
]
DEVICE = f"{private_key(1)}\t{public_key_of(private_key(1))}\t51820\toff\n"
