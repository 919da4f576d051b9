"""The page of what devices reported by themselves, all of them together."""

from __future__ import annotations

from virmo_server.api import operations_running as running
from virmo_server.api import schema_running as schema
from virmo_server.console.links import url
from virmo_server.console.visit import Answer, Page, Visit

#: Lines of a page.
LINES = 100


def alerts_page(visit: Visit) -> Answer:
    """The newest alerts of the fleet; ``before`` looks further back."""
    before = visit.query.get("before", "")
    asked = {"before": before} if before else {}
    alerts: list[schema.FleetAlertView] = visit.call(running.list_fleet_alerts, query={**asked, "limit": str(LINES)})
    earlier = url("alerts", before=alerts[-1].id) if len(alerts) == LINES else None
    return Page("alerts.html", {"alerts": alerts, "earlier": earlier})
