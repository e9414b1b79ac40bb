"""The commands, one file each; the only room that prints.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 a fault of ours (or
nobody read the output to its end), 2 bad input or configuration, 3 a store that cannot be used,
130 interrupted.
"""
