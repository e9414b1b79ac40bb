"""A provider's limits as seen from here: buckets, slots, pools, and what is charged when. Pure.

``bucket`` keeps one limit, ``pool`` all limits of one deployment, ``charge`` turns an estimate
or a usage into amounts, ``production`` keeps output that is charged while it is produced,
``replay`` turns a provider's ``remaining`` header into an interval.
"""
