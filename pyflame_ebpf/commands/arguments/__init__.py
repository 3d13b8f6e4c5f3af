"""What each command line takes: a file for each command, which makes its request and hands it to the command.

Nothing here records, reads or writes; a command's own modules are imported when it runs.
"""
