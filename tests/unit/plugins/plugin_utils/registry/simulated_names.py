"""The names of the simulated fleet's nodes, and of customers on them."""

from __future__ import annotations

NL, DE, FR = "nl1.example.com", "de1.example.com", "fr1.example.com"
ALICE, BOB, CAROL = "alice@example.com", "bob@example.com", "carol@example.com"
