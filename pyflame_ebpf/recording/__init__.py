"""One recording from start to end.  Prints nothing."""
