"""Room ``store``."""
