"""``virmo-server``: makes a trial installation, runs the server, makes first accounts, backs up and restores."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from virmo_server.config import ConfigError, ServerConfig, load_config
from virmo_server.database import DatabaseError
from virmo_server.problem import Problem

EXIT_FAILED = 1
EXIT_CONFIG = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ConfigError as error:
        print(f"virmo-server: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except (DatabaseError, Problem, OSError) as error:
        print(f"virmo-server: {error}", file=sys.stderr)
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="virmo-server", description="OMA DM and VirMO Server for a fleet of virtualisation hosts."
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration (needed by serve and token)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the server in the foreground")
    serve.add_argument(
        "--workers", type=_count, default=1, metavar="N",
        help="processes that share the work (default: %(default)s); any may serve any device and operator",
    )  # fmt: skip
    serve.set_defaults(run=_serve)
    init = commands.add_parser("init", help="make a folder with CA, certificate, configuration and an admin token")
    init.add_argument("folder", type=Path, metavar="DIR")
    init.add_argument(
        "--host", action="append", default=[], metavar="NAME",
        help="host name or IP address by which devices reach the server; may be repeated, the first one goes into the"
        " public URL; localhost and 127.0.0.1 are always added to the certificate",
    )  # fmt: skip
    init.add_argument("--listen", default="0.0.0.0", metavar="ADDRESS", help="address to listen on (default: all)")  # noqa: S104
    init.add_argument("--port", type=int, default=8443, help="TCP port (default: %(default)s)")
    init.add_argument("--server-id", default="virmo-server", help="ServerID towards devices (default: %(default)s)")
    init.set_defaults(run=_init)
    certificate = commands.add_parser(
        "certificate", help="make a client certificate for a board, with the trial CA that init has made"
    )
    certificate.add_argument("name", type=_common_name, help="its subject becomes CN=NAME")
    certificate.add_argument("--into", type=Path, default=Path(), metavar="DIR", help="where (default: here)")
    certificate.set_defaults(run=_certificate)
    token = commands.add_parser("token", help="make a token for the HTTP API, without needing one")
    token.add_argument("name", help="who will use it; appears in audit trails")
    token.add_argument("--role", choices=["viewer", "operator", "admin"], default="operator")
    token.set_defaults(run=_token)
    operator = commands.add_parser(
        "operator", help="make an operator's account, without needing one; its password is the first line of stdin"
    )
    operator.add_argument("name", help="who logs in; appears in audit trails")
    operator.add_argument("--role", choices=["viewer", "operator", "admin"], default="operator")
    operator.set_defaults(run=_operator)
    back_up = commands.add_parser("backup", help="write database, images and key to one file; the server may run")
    back_up.add_argument("file", type=Path, metavar="FILE", help="such as backup.tar.gz; replaced when complete")
    back_up.add_argument("--without-images", action="store_true", help="leave the image files out")
    back_up.set_defaults(run=_back_up)
    restore = commands.add_parser("restore", help="fill an empty installation from a backup, on whatever database")
    restore.add_argument("file", type=Path, metavar="FILE")
    restore.set_defaults(run=_restore)
    migrate = commands.add_parser("migrate", help="bring the database's tables to this version (serve does it, too)")
    migrate.set_defaults(run=_migrate)
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 64):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1 to 64")
    return int(text)


def _config(options: argparse.Namespace) -> ServerConfig:
    if options.config is None:
        raise ConfigError(
            "give the configuration: virmo-server --config FILE … (make one with 'virmo-server init DIR')"
        )
    return load_config(options.config)


def _serve(options: argparse.Namespace) -> int:
    from virmo_server.logs import set_up_logs

    config = _config(options)
    set_up_logs(config.log_level, config.log_format)
    _share_metrics(config.state_dir)
    from virmo_server.serve import serve

    return serve(config, options.workers)


def _share_metrics(state_dir: Path) -> None:
    """Let all processes count together. The library decides that when it is imported, so nothing may have been."""
    folder = state_dir / "metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def _back_up(options: argparse.Namespace) -> int:
    from virmo_server.backup import back_up
    from virmo_server.migrate import migrate
    from virmo_server.services import open_database

    config = _config(options)
    database = open_database(config)
    try:
        migrate(database)
        back_up(config, database, options.file, images=not options.without_images)
    finally:
        database.close()
    print(f"backed up to {options.file}: keep it safe, it holds the devices' secrets and the key to them")
    return 0


def _restore(options: argparse.Namespace) -> int:
    from virmo_server.backup import restore
    from virmo_server.services import open_database

    config = _config(options)
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = open_database(config)
    try:
        restore(config, database, options.file)
    finally:
        database.close()
    print(f"restored from {options.file}")
    return 0


def _init(options: argparse.Namespace) -> int:
    from virmo_server.initialise import initialise

    made = initialise(
        options.folder,
        hosts=options.host,
        listen=options.listen,
        port=options.port,
        server_id=options.server_id,
    )
    print(
        f"""Made a trial installation in {made.folder}

  {made.config_file}   configuration
  {made.client_config_file}   address, CA and admin token for 'virmo' (keep it secret)
  {made.ca_file}   CA certificate, for the devices' dm.accounts[].tls.ca_file

Next:
  virmo-server --config {made.config_file} serve
  export VIRMO_CONFIG={made.client_config_file}
  virmo device add board-1 --dev-id urn:uuid:… --agent-config"""
    )
    return 0


def _common_name(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected at most 64 letters, digits, . _ -")
    return text


def _certificate(options: argparse.Namespace) -> int:
    from virmo_server.initialise import issue_client_certificate

    path = issue_client_certificate(_config(options), options.name, options.into)
    print(
        f"""{path}: certificate and key for the board's dm.accounts[].tls.client_certificate (keep it secret)

Next: virmo device set DEVICE --certificate CN={options.name}"""
    )
    return 0


def _token(options: argparse.Namespace) -> int:
    from virmo_server.api.auth import add_token
    from virmo_server.migrate import migrate
    from virmo_server.model import Role
    from virmo_server.services import open_database

    config = _config(options)
    database = open_database(config)
    try:
        migrate(database)
        with database.write() as session:
            print(add_token(session, name=options.name, role=Role(options.role), now=datetime.now(UTC)))
    finally:
        database.close()
    return 0


def _operator(options: argparse.Namespace) -> int:
    from virmo_server.api.schema_running import NewOperatorBody
    from virmo_server.cli.commands_operator import ask_password
    from virmo_server.config import describe_error
    from virmo_server.migrate import migrate
    from virmo_server.model import Role
    from virmo_server.operators import add_operator
    from virmo_server.services import open_database

    database = open_database(_config(options))
    try:
        body = NewOperatorBody(name=options.name, role=Role(options.role), password=ask_password("password"))
        migrate(database)
        with database.write() as session:
            add_operator(session, name=body.name, role=body.role, password=body.password, now=datetime.now(UTC))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise ConfigError("; ".join(describe_error(detail) for detail in details)) from error
    finally:
        database.close()
    print(f"account {options.name} is made")
    return 0


def _migrate(options: argparse.Namespace) -> int:
    from virmo_server.migrate import migrate, newest_version
    from virmo_server.services import open_database

    database = open_database(_config(options))
    try:
        found = migrate(database)
    finally:
        database.close()
    print(f"the database's tables have version {newest_version()}, they had {found or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
