"""`make demo`: a fleet in the lab, converged by playbooks/site.yml, and the proof that it works."""
