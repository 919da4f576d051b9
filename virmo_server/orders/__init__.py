"""Orders: what operators want of devices, kept over sessions, restarts and failures until done or given up."""
