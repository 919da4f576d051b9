"""The simulator: domains are processes that run the real guest shim. A product part, not a test's stand-in.

Light on purpose: the domain processes import this package too. ``toolstack.open_sim`` opens a simulated machine.
"""
