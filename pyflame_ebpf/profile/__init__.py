"""A recording as plain data, its file, and the parts of it that are looked at.  Reads no process, kernel or clock."""
