"""Room ``limits``."""
