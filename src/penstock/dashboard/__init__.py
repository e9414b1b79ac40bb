"""Room ``dashboard``: the live page and the snapshot that it shows."""
