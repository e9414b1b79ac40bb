"""Room ``chains``."""
