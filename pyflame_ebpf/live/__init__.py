"""What a live view has counted, its rows and what its keys do.  Knows no terminal."""
