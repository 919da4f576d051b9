"""What all unit tests share: how properties are tested."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A property is judged by what it shows, not by how busy the machine is: slowness has tests of its own.
settings.register_profile("virmo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("virmo")
