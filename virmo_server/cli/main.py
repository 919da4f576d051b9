"""``virmo``, the operator's command line: parser and errors. Every command is a function in ``cli.commands``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from virmo_server.cli import (
    commands_completion,
    commands_device,
    commands_events,
    commands_image,
    commands_node,
    commands_operator,
    commands_order,
    commands_resources,
    commands_server,
    commands_vm,
)
from virmo_server.cli.client import ClientError
from virmo_server.cli.context import EXIT_NOT_IN_TIME, EXIT_REFUSED, EXIT_USAGE, Context
from virmo_server.cli.settings import SettingsError
from virmo_server.cli.waiting import NotInTime

#: Each adds its commands; in the order in which help lists them.
MODULES = (
    commands_device,
    commands_image,
    commands_vm,
    commands_resources,
    commands_node,
    commands_order,
    commands_events,
    commands_operator,
    commands_server,
    commands_completion,
)
DESCRIPTION = "Manage virtual machines on a fleet of boards, through a VirMO Server."
EPILOG = """
where the server is (the first that is set wins):
  --server, --ca           address and CA certificate
  VIRMO_SERVER, VIRMO_TOKEN, VIRMO_CA
  --config, VIRMO_CONFIG   a YAML file with the keys server, token, ca_file
  ~/.config/virmo.yaml     the same

exit status:
  0  done (without --wait: the order is queued)     3  the server refused, or cannot be reached
  1  the order failed, expired or was cancelled     4  --timeout passed, the order goes on
  2  wrong usage or settings

the way of a VM:
  virmo device add board-1 --dev-id urn:uuid:… --agent-config
  virmo image deliver board-1 --name web --file web.tar.gz --media-type application/gzip --wait
  virmo vm create board-1 www --image web --wait
  virmo vm list board-1
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    options = build_parser().parse_args(arguments)
    context = Context(options)
    try:
        return int(options.run(context))
    except SettingsError as error:
        return _complain(error, EXIT_USAGE)
    except ClientError as error:
        return _complain(error, EXIT_REFUSED)
    except NotInTime as error:
        return _complain(error, EXIT_NOT_IN_TIME)
    except KeyboardInterrupt:
        return _complain("stopped; orders that are queued stay so", 130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe went away: nobody to tell
        return 0
    finally:
        context.close()


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="virmo",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--server", metavar="URL", help="address of the server")
    parser.add_argument("--ca", metavar="FILE", help="CA certificate of the server, PEM")
    parser.add_argument("--config", metavar="FILE", help="settings file")
    nouns = parser.add_subparsers(required=True, metavar="NOUN")
    for module in MODULES:
        module.register(nouns)
    return parser


def _complain(error: object, status: int) -> int:
    print(f"virmo: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
