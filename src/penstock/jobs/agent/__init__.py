"""The Agent Server protocol, as ``langgraph-sdk`` and ``RemoteGraph`` speak it, on the job engine.

Every chain is an assistant; every run is a job, so it is stored before it is accepted, told in
numbered events that a reader can come back to, attempted again and cancelled as any other.
``request`` reads what is asked, ``execution`` has a worker carry it out, ``runs``, ``threads``
and ``assistants`` answer, ``door`` has the routes and the names of what is not served.
"""
