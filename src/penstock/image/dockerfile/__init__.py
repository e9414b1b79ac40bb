"""A project's Dockerfile: written, or read, checked and mended.

``project`` and ``write`` make one; ``strip_step`` is the part of it that strips. ``parse`` and
``stages`` read one, ``rules`` look at it, ``findings`` are what they say with the edits that mend
it, and ``lint`` is all of that together.
"""
