"""Raw stacks and counts: kept, woven, named, and made a Profile.  Does no I/O of its own."""
