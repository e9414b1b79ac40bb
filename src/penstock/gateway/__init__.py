"""The provider-compatible door: every LLM call of the company, whatever SDK it comes from.

``calls`` takes a call from its caller to the dispatcher and back, ``who`` says in whose name it
is made, ``models`` lists what may be asked for, ``routes`` says what stands where.
"""
