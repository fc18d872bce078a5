"""One thread a process: the tests run side by side, and so small are their networks that threads
would only wait for each other. Set before torch is imported; commands started by tests inherit it.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
