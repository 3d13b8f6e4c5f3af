"""The BPF programs and all that crosses between them and user space.  The only importer of bcc.  Knows no process."""
