"""The chain worker: a process that imports the user's chains and runs them.

The only code of the product that imports LangChain and LangGraph. It is started by
``chains.supervisor`` as ``python -m penstock.chains.worker`` and serves the LangServe protocol
on a Unix socket. A worker contains faults (a crash, a leak, a blocked loop); it is not a
sandbox: chain code is trusted as the rest of the deployed image is.
"""
