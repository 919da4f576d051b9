"""OMA DM 1.2/1.3, both roles, sans-IO: no sockets, files, threads, clocks or Xen in here; they are passed in."""
