"""From an address to a function: symbol tables, debug files, perf maps, the kernel's own list.  Trusts no name."""
