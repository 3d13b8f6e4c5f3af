"""The processes that were met while sampling: what each runs, what it has mapped, which of its files can be read."""
