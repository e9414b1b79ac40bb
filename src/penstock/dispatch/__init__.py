"""Room ``dispatch``."""
