"""What a base image costs a project: lock file in, verdicts, sizes and a Dockerfile out.

The room stands apart from the service: it imports nothing of it but ``errors``, and only ``cli``
imports it. It gives no rule such as "Alpine is slow": whether it is depends on the lock file, on
the day, and on libc, architecture and Python at once, so it asks the lock file and the index.

=====================  =====================================================================
``model``              the data all of this speaks of
``files``              reading a project's files, which may be hostile
``locks/``             one reader a format, into one ``Lock``; which packages a target installs
``targets``            base image, architecture and Python as wheel tags; ``data/targets.toml``
``judge``              the verdict on one package for one target
``knowledge``          what is known of packages beyond their tags; ``data/knowledge.toml``
``facts``              what is known beyond the lock; who is asked for it, and when
``index``, ``wheel``   what an index says of a project's files; sizes from a wheel's directory
``cache``              what they said before
``check``              all of that together: a report
``forms``              the report as JSON, SARIF and annotations
``compare``            base images side by side, as a table and as a picture
``dockerfile/``        writes a project's Dockerfile; checks and mends one that is there
``measure``            builds for real, beside what is expected
``elf``, ``strip``     symbols out of an object; out of an installed prefix
=====================  =====================================================================
"""
