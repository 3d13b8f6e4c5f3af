/* bcc brings its own copy of the BPF user API; this only stands where it looks for the kernel's. */
