"""Executed instructions of emulated Arm cores: edgeq's runner and the peers under qemu with `count.c`."""
