"""The agent on a node of the lab, and a client of it: for tests and benches."""
