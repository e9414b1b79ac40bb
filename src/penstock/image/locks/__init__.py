"""Lock files: which one a project has, read by the reader of its format, chosen for a target.

``find`` names the file, ``read`` reads it, ``selection.select`` says what of it a target
installs. Each format has a module of its own, which knows nothing of the others.
"""
