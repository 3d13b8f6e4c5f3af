"""Stacks and samples as the programs sent them: kept, forgotten, woven, named, and made a Profile.

``collected`` takes in what comes, ``kept_samples`` decides what stays, ``naming`` and ``profile_naming`` make profiles.
Does no I/O of its own: what must be read from the host is read by functions that the caller passes in.
"""
