"""The sandbox provider: OpenAI- and Anthropic-shaped answers behind limits that are enforced."""
