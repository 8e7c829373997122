"""Prints the protocol as it is described from its own models.

``python -m rlmd.wire.discover`` prints the OpenRPC document, with ``--markdown`` the page of the protocol, with
``--configuration`` that of the settings.
"""

from __future__ import annotations

import json
import sys

from rlmd.wire.openrpc import openrpc
from rlmd.wire.page import protocol_page
from rlmd.wire.settings_page import settings_page


def main() -> None:
    if "--markdown" in sys.argv[1:]:
        sys.stdout.write(protocol_page())
    elif "--configuration" in sys.argv[1:]:
        sys.stdout.write(settings_page())
    else:
        sys.stdout.write(json.dumps(openrpc(), indent=2) + "\n")


if __name__ == "__main__":
    main()
