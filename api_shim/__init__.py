"""The HTTP interface: authenticates, validates, records operations, runs the playbooks and maps their results."""
