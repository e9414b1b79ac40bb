"""Room ``scheduler``."""
