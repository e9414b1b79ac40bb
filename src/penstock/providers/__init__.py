"""What each provider's wire looks like: requests, usage, limit headers, errors. Pure.

One module a provider kind; ``base`` says what the doors and the dispatcher ask of it.
"""
