"""Room ``http``: what all doors share: the server, authentication, error bodies, hang-ups."""
