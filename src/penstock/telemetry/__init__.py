"""Room ``telemetry``."""
