"""Test nodes with a real systemd: Debian containers, for `wg-quick@wgN` units and reboots."""
