"""OMA DM Server and VirMO Server: what the device owner runs."""
