"""The HTTP interface on the lab, to try it out: python -m tests.serve."""
