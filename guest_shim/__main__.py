"""``python3 -m guest_shim``."""

import sys

from guest_shim.cli import main

sys.exit(main())
