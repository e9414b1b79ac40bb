"""The configuration: one documented TOML file in, one validated value out.

``model`` says what may stand in the file, ``load`` reads it and names every problem at once,
``defaults`` is what runs without a file. The file itself is documented in
``docs/configuration.md``.
"""
