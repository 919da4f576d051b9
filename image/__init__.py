"""Builds bootable Xen dom0 images and sample guests, and runs them in QEMU."""
