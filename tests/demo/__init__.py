"""`make demo`: a fleet in the lab, run from a registry by the playbooks, and the proof that it works."""
