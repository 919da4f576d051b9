"""The table of the console: every page and every form with the role it needs; routes come from it."""

from __future__ import annotations

from virmo_server.console import access, alerts, devices, library, messages, orders, resources, tree, vms
from virmo_server.console.page import ConsolePage
from virmo_server.model import Role

_DEVICE = "/devices/{device}"
_VM = f"{_DEVICE}/vms/{{vm}}"

PAGES = (
    ConsolePage("GET", "/devices", Role.VIEWER, devices.devices_page),
    ConsolePage("POST", "/devices", Role.ADMIN, devices.add_device),
    ConsolePage("GET", _DEVICE, Role.VIEWER, devices.device_vms),
    ConsolePage("GET", _VM, Role.VIEWER, vms.vm_page),
    ConsolePage("POST", f"{_VM}/ask", Role.OPERATOR, vms.ask),
    ConsolePage("POST", f"{_VM}/install", Role.OPERATOR, vms.install),
    ConsolePage("POST", f"{_VM}/update", Role.OPERATOR, vms.update),
    ConsolePage("GET", f"{_DEVICE}/resources", Role.VIEWER, resources.resources_page),
    ConsolePage("POST", f"{_DEVICE}/resources", Role.OPERATOR, resources.apply),
    ConsolePage("GET", f"{_DEVICE}/images", Role.VIEWER, devices.device_images),
    ConsolePage("GET", f"{_DEVICE}/tree", Role.VIEWER, tree.tree_page),
    ConsolePage("GET", f"{_DEVICE}/messages", Role.VIEWER, messages.messages_page),
    ConsolePage("GET", f"{_DEVICE}/alerts", Role.VIEWER, devices.device_alerts),
    ConsolePage("GET", f"{_DEVICE}/orders", Role.VIEWER, devices.device_orders),
    ConsolePage("GET", f"{_DEVICE}/settings", Role.VIEWER, devices.device_settings),
    ConsolePage("POST", f"{_DEVICE}/settings", Role.ADMIN, devices.change_device),
    ConsolePage("POST", f"{_DEVICE}/credentials", Role.ADMIN, devices.renew_credentials),
    ConsolePage("POST", f"{_DEVICE}/remove", Role.ADMIN, devices.remove_device),
    ConsolePage("POST", f"{_DEVICE}/orders", Role.OPERATOR, devices.order),
    ConsolePage("POST", f"{_DEVICE}/tree/properties", Role.OPERATOR, tree.read_properties),
    ConsolePage("GET", "/alerts", Role.VIEWER, alerts.alerts_page),
    ConsolePage("GET", "/orders", Role.VIEWER, orders.orders_page),
    ConsolePage("GET", "/orders/{order}", Role.VIEWER, orders.order_page),
    ConsolePage("POST", "/orders/{order}/cancel", Role.OPERATOR, orders.cancel),
    ConsolePage("GET", "/groups", Role.VIEWER, orders.groups_page),
    ConsolePage("POST", "/groups", Role.OPERATOR, orders.add_group),
    ConsolePage("GET", "/groups/{group}", Role.VIEWER, orders.group_page),
    ConsolePage("GET", "/images", Role.VIEWER, library.images_page),
    ConsolePage("POST", "/images/{image}/delete", Role.OPERATOR, library.delete_image),
    ConsolePage("GET", "/access", Role.ADMIN, access.access_page),
    ConsolePage("POST", "/access/operators", Role.ADMIN, access.add_operator),
    ConsolePage("POST", "/access/operators/{operator}", Role.ADMIN, access.change_operator),
    ConsolePage("POST", "/access/operators/{operator}/remove", Role.ADMIN, access.remove_operator),
    ConsolePage("POST", "/access/tokens", Role.ADMIN, access.add_token),
    ConsolePage("POST", "/access/tokens/{token}/revoke", Role.ADMIN, access.revoke_token),
    ConsolePage("GET", "/audit", Role.ADMIN, access.audit_page),
    ConsolePage("GET", "/account", Role.VIEWER, access.account_page),
    ConsolePage("POST", "/account/password", Role.VIEWER, access.change_password),
)
