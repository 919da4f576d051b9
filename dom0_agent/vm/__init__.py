"""VMs and their states; knows nothing of OMA DM."""
