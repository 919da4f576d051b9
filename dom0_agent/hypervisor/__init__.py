"""Domains, not VMs: one small interface, the real implementation (xl, XenStore), and the simulator."""
