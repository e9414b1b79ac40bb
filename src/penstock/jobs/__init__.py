"""The door for what outlives its request: durable runs, their events and webhooks, batches, files.

``states`` holds the rules, ``engine`` runs jobs and is the service that other protocols build
on, ``door`` is HTTP. Nothing here knows how a chain is run: a job is a request to another door
of this process, made in the name of the key that ordered it (``http/inside``).
"""
