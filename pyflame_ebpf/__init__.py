"""A system-wide eBPF profiler for Python on Linux."""

__version__ = "0.1.0"
