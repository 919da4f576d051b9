"""OMA DM Client and VirMO Client of a Xen board: the agent that runs in dom0, the Management VM."""
