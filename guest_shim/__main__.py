"""``python3 -m guest_shim``."""

import sys

from guest_shim.start import main

sys.exit(main())
