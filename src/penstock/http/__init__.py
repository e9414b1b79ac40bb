"""Room ``http``."""
