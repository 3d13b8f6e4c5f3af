"""From a native frame to its caller: `.eh_frame` becomes rows, rows move registers.  Reads files, never a process."""
