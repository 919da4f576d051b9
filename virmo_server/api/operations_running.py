"""The operations of the HTTP API on the server's own running; ``api.endpoints`` lists them."""

from __future__ import annotations

from sqlalchemy import delete, select

from virmo_server import audit, operators
from virmo_server.api import schema_running as schema
from virmo_server.api import views
from virmo_server.api.auth import Actor
from virmo_server.api.endpoint import Call
from virmo_server.audit import audited
from virmo_server.devices.registry import find_device
from virmo_server.dm.trace import ShownSession
from virmo_server.images.library import find_image
from virmo_server.model import Device, ReceivedAlert
from virmo_server.model_running import AuditRecord, InstallReport, Login, Operator
from virmo_server.passwords import is_password
from virmo_server.problem import Problem, conflict


def get_trace(call: Call) -> list[schema.TraceSessionView]:
    """What was said in the last DM sessions of a device, newest session first."""
    with call.services.database.read() as session:
        device = find_device(session, call.path["device"])
        return [_trace_view(shown) for shown in call.services.trace.show(session, device, call.query["sessions"])]


def _trace_view(shown: ShownSession) -> schema.TraceSessionView:
    messages = [
        schema.TraceMessageView(
            at=message.at,
            from_device=message.from_device,
            media_type=message.media_type,
            size=message.size,
            lines=message.lines,
        )
        for message in shown.messages
    ]
    return schema.TraceSessionView(serial=shown.serial, started_at=messages[0].at, messages=messages)


def list_fleet_alerts(call: Call) -> list[schema.FleetAlertView]:
    """The newest Generic Alerts of all devices, newest first."""
    query = select(ReceivedAlert, Device.name).join(Device, Device.id == ReceivedAlert.device_id)
    if call.query["before"] is not None:
        query = query.where(ReceivedAlert.id < call.query["before"])
    newest = query.order_by(ReceivedAlert.id.desc()).limit(call.query["limit"])
    with call.services.database.read() as session:
        return [
            schema.FleetAlertView(device=name, **views.alert_view(alert).model_dump())
            for alert, name in session.execute(newest)
        ]


def log_in(call: Call) -> schema.LoginView:
    """A key to the API for an operator's name and password; after five wrong ones the account rests for a minute."""
    body: schema.LoginBody = call.body
    services = call.services
    with services.database.write() as session:
        outcome = operators.log_in(session, name=body.name, untrusted_password=body.password, now=services.clock())
    if isinstance(outcome, Problem):
        audit.record(services, Actor(body.name, call.actor.role), "log_in", body.name, (outcome.status, str(outcome)))
        raise outcome
    operator = outcome.operator
    audit.record(services, Actor(operator.name, operator.role), "log_in", operator.name, (200, ""))
    return schema.LoginView(name=operator.name, role=operator.role, token=outcome.token, expires_at=outcome.expires_at)


@audited
def log_out(call: Call) -> None:
    """Make the log-in void by which the request came."""
    if call.actor.login is None:
        raise conflict("this came by a token, not by a log-in: 'virmo token revoke' makes tokens void")
    with call.services.database.write() as session:
        session.execute(delete(Login).where(Login.id == call.actor.login))


@audited
def change_password(call: Call) -> None:
    """Change the operator's own password; other log-ins end, this one too."""
    body: schema.PasswordBody = call.body
    if call.actor.login is None:
        raise conflict("this came by a token, which has no password: log in first")
    with call.services.database.write() as session:
        operator = operators.find_operator(session, call.actor.name)
        if not is_password(body.old, operator.password):
            raise Problem(403, "password", "the old password is wrong")
        operators.change_operator(session, operator, role=None, password=body.new)


def list_install_reports(call: Call) -> list[schema.InstallReportView]:
    """What devices reported of an image that they fetched by its download descriptor, newest first."""
    with call.services.database.read() as session:
        image = find_image(session, call.path["image"])
        query = select(InstallReport).where(InstallReport.image_id == image.id).order_by(InstallReport.id.desc())
        reports = session.scalars(query.limit(call.query["limit"]))
        return [schema.InstallReportView(at=row.at, status=row.status, text=row.text) for row in reports]


def list_operators(call: Call) -> list[schema.OperatorView]:
    """All accounts, by name."""
    with call.services.database.read() as session:
        return [_operator_view(operator) for operator in session.scalars(select(Operator).order_by(Operator.name))]


@audited
def create_operator(call: Call) -> schema.OperatorView:
    """A new account for a person."""
    body: schema.NewOperatorBody = call.body
    with call.services.database.write() as session:
        return _operator_view(
            operators.add_operator(
                session, name=body.name, role=body.role, password=body.password, now=call.services.clock()
            )
        )


@audited
def change_operator(call: Call) -> schema.OperatorView:
    """A new role or password for an account; its log-ins end."""
    body: schema.OperatorChangeBody = call.body
    with call.services.database.write() as session:
        operator = operators.find_operator(session, call.path["operator"])
        operators.change_operator(session, operator, role=body.role, password=body.password)
        return _operator_view(operator)


@audited
def remove_operator(call: Call) -> None:
    """Remove an account; its log-ins end at once, the audit trail keeps its name."""
    with call.services.database.write() as session:
        session.delete(operators.find_operator(session, call.path["operator"]))


def list_audit(call: Call) -> list[schema.AuditView]:
    """The audit trail, newest first."""
    query = select(AuditRecord).order_by(AuditRecord.id.desc()).limit(call.query["limit"])
    if call.query["actor"] is not None:
        query = query.where(AuditRecord.actor == call.query["actor"])
    if call.query["before"] is not None:
        query = query.where(AuditRecord.id < call.query["before"])
    with call.services.database.read() as session:
        return [_audit_view(row) for row in session.scalars(query)]


def _operator_view(operator: Operator) -> schema.OperatorView:
    return schema.OperatorView(
        name=operator.name, role=operator.role, created_at=operator.created_at, locked_until=operator.locked_until
    )


def _audit_view(row: AuditRecord) -> schema.AuditView:
    return schema.AuditView(
        id=row.id,
        at=row.at,
        actor=row.actor,
        role=row.role,
        operation=row.operation,
        target=row.target,
        status=row.status,
        detail=row.detail,
    )
