"""Virtual time: workloads and a provider that enforces its limits, without I/O or a clock."""
