"""Room ``gateway``."""
