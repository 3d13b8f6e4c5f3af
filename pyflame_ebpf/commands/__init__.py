"""The commands: each command line becomes a request, which one of these modules carries out."""
