"""Room ``simulate``."""
