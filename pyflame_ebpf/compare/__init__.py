"""Two recordings: spelled alike, counted, and compared with errors.  Reads nothing."""
