"""The management objects of VMs, below ``VirMO/<x>/DMTree``: kept in dom0, served by the shims in the guests."""
