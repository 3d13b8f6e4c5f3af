"""Every output of a comparison.  Prints nothing that it is not given a stream for."""
