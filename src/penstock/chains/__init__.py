"""Chains: LangChain runnables, run in worker processes and served in the LangServe protocol.

Two sides that share ``spec`` and nothing else. The front side (``supervisor``, ``door``) lives
in the process that schedules: it starts workers, restarts them, and passes requests and answers
through; it never imports LangChain or a user's module. The worker side (``worker/``) imports
them, runs the chains and speaks the protocol on a private Unix socket.
"""
