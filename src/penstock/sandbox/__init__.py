"""Room ``sandbox``."""
