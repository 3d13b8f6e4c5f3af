"""What this host says of itself and of its processes (/proc, /sys, BTF), and the files that are read and written on it.

Knows no interpreter and no BPF program.
"""
