"""The lab: a fleet of nodes and customers' devices in network namespaces of this machine."""
