"""Room ``dashboard``."""
