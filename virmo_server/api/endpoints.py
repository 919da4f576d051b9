"""The table of the HTTP API: every operation with role, bodies and query; routes and OpenAPI come from it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from virmo_server.api import operations as op
from virmo_server.api import operations_running as running
from virmo_server.api import schema, schema_orders
from virmo_server.api import schema_base as base
from virmo_server.api import schema_running as running_schema
from virmo_server.api.endpoint import Endpoint, Query
from virmo_server.model import OrderState, Role

Limit = Annotated[int, Field(ge=1, le=1000)]
Sessions = Annotated[int, Field(ge=1, le=100)]
OrderId = Annotated[int, Field(ge=1, le=2**63 - 1)]
Offset = Annotated[int, Field(ge=0, lt=2**31)]
DEFAULT_LIMIT = 200

_LIMIT = {"limit": Query(Limit, "at most so many", DEFAULT_LIMIT)}
_SHA256 = Annotated[str, Field(pattern=base.SHA256_PATTERN)]

ENDPOINTS = (
    Endpoint("GET", "/server", Role.VIEWER, "Who answers", op.get_server, schema.ServerView, problems=()),
    Endpoint(
        "GET", "/devices", Role.VIEWER, "List devices", op.list_all_devices, list[schema.DeviceView],
        query={
            "label": Query(base.Label, "only devices with this label"),
            "word": Query(base.Text, "only devices with this word in name, DevId, manufacturer, model or a label"),
            "offset": Query(Offset, "leave out so many of the first", 0),
            "limit": Query(Limit, "at most so many (default: all)"),
        },
        problems=(),
    ),
    Endpoint(
        "POST", "/devices", Role.ADMIN, "Register a device", op.add_device, schema.RegistrationView,
        schema.NewDeviceBody, status=201, problems=(409,),
    ),
    Endpoint("GET", "/devices/{device}", Role.VIEWER, "Show a device", op.get_device, schema.DeviceView),
    Endpoint(
        "PATCH", "/devices/{device}", Role.ADMIN, "Change a device", op.change_device, schema.DeviceView,
        schema.DeviceChangeBody, problems=(404, 409),
    ),
    Endpoint("DELETE", "/devices/{device}", Role.ADMIN, "Forget a device", op.remove_device, status=204),
    Endpoint(
        "POST", "/devices/{device}/credentials", Role.ADMIN, "Renew a device's credentials",
        op.renew_device_credentials, schema.RegistrationView,
    ),
    Endpoint("GET", "/devices/{device}/vms", Role.VIEWER, "List a device's VMs", op.list_vms, list[schema.VmView]),
    Endpoint(
        "GET", "/devices/{device}/images", Role.VIEWER, "List a device's images", op.list_device_images,
        list[schema.DeviceImageView],
    ),
    Endpoint(
        "GET", "/devices/{device}/nodes", Role.VIEWER, "Known nodes of a device's tree", op.list_nodes,
        list[schema.NodeView], query={"uri": Query(base.Text, "below this node", ".")},
    ),
    Endpoint(
        "GET", "/devices/{device}/alerts", Role.VIEWER, "Alerts of a device", op.list_alerts, list[schema.AlertView],
        query=_LIMIT,
    ),
    Endpoint(
        "GET", "/alerts", Role.VIEWER, "Alerts of all devices", running.list_fleet_alerts,
        list[running_schema.FleetAlertView],
        query={"before": Query(OrderId, "only before the alert with this number, to look further back"), **_LIMIT},
        problems=(),
    ),
    Endpoint(
        "GET", "/devices/{device}/trace", Role.VIEWER, "DM messages of a device's last sessions", running.get_trace,
        list[running_schema.TraceSessionView], query={"sessions": Query(Sessions, "at most so many sessions", 5)},
    ),
    Endpoint(
        "POST", "/devices/{device}/orders", Role.OPERATOR, "Order something of a device", op.create_order,
        schema.OrderDetailView, schema_orders.OrderBody, status=201, problems=(404, 409),
    ),
    Endpoint(
        "GET", "/orders", Role.VIEWER, "List orders", op.list_orders, list[schema.OrderView],
        query={
            "device": Query(base.Text, "only of this device"),
            "state": Query(OrderState, "only in this state"),
            "group": Query(OrderId, "only of this group"),
            **_LIMIT,
        },
    ),
    Endpoint("GET", "/orders/{order}", Role.VIEWER, "Show an order", op.get_order, schema.OrderDetailView),
    Endpoint(
        "POST", "/orders/{order}/cancel", Role.OPERATOR, "Cancel an order", op.cancel_order, schema.OrderDetailView,
        problems=(404, 409),
    ),
    Endpoint(
        "POST", "/groups", Role.OPERATOR, "Order something of all devices with a label", op.create_group,
        schema.GroupView, schema.NewGroupBody, status=201, problems=(404, 409),
    ),
    Endpoint(
        "GET", "/groups", Role.VIEWER, "List order groups", op.list_groups, list[schema.GroupView], query=_LIMIT,
        problems=(),
    ),
    Endpoint("GET", "/groups/{group}", Role.VIEWER, "Show an order group", op.get_group, schema.GroupView),
    Endpoint(
        "GET", "/images", Role.VIEWER, "List the image library", op.list_images, list[schema.ImageView],
        query={"sha256": Query(_SHA256, "only files with this SHA-256")}, problems=(),
    ),
    Endpoint("GET", "/images/{image}", Role.VIEWER, "Show a library image", op.get_image, schema.ImageView),
    Endpoint(
        "DELETE", "/images/{image}", Role.OPERATOR, "Remove a library image", op.delete_library_image, status=204,
        problems=(404, 409),
    ),
    Endpoint(
        "GET", "/images/{image}/reports", Role.VIEWER, "Reports of devices that fetched an image by its descriptor",
        running.list_install_reports, list[running_schema.InstallReportView], query=_LIMIT,
    ),
    Endpoint("GET", "/tokens", Role.ADMIN, "List tokens", op.list_tokens, list[schema.TokenView], problems=()),
    Endpoint(
        "POST", "/tokens", Role.ADMIN, "Make a token", op.create_token, schema.NewTokenView, schema.NewTokenBody,
        status=201, problems=(409,),
    ),
    Endpoint(
        "POST", "/login", None, "Log in", running.log_in, running_schema.LoginView, running_schema.LoginBody,
        problems=(429,),
    ),
    Endpoint("POST", "/logout", Role.VIEWER, "Log out", running.log_out, status=204, problems=(409,)),
    Endpoint(
        "POST", "/password", Role.VIEWER, "Change one's password", running.change_password,
        body=running_schema.PasswordBody, status=204, problems=(409,),
    ),
    Endpoint(
        "GET", "/operators", Role.ADMIN, "List accounts", running.list_operators, list[running_schema.OperatorView],
        problems=(),
    ),
    Endpoint(
        "POST", "/operators", Role.ADMIN, "Make an account", running.create_operator, running_schema.OperatorView,
        running_schema.NewOperatorBody, status=201, problems=(409,),
    ),
    Endpoint(
        "PATCH", "/operators/{operator}", Role.ADMIN, "Change an account", running.change_operator,
        running_schema.OperatorView, running_schema.OperatorChangeBody,
    ),
    Endpoint("DELETE", "/operators/{operator}", Role.ADMIN, "Remove an account", running.remove_operator, status=204),
    Endpoint(
        "GET", "/audit", Role.ADMIN, "Who asked for what", running.list_audit, list[running_schema.AuditView],
        query={
            "actor": Query(base.Text, "only by this operator or token"),
            "before": Query(OrderId, "only before the record with this number, to look further back"),
            **_LIMIT,
        },
        problems=(),
    ),
    Endpoint(
        "DELETE", "/tokens/{token}", Role.ADMIN, "Revoke a token", op.remove_token, status=204, problems=(404, 409),
    ),
)  # fmt: skip
