"""Room ``telemetry``: metrics and logs."""
