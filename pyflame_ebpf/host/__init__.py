"""The host as it describes itself and its processes (/proc, /sys, BTF), and files that are read and written on it.

Knows no interpreter and no BPF program.
"""
