"""What runs when, and what the user sees of it: Prefect owns time, and calls the floor below."""

import os

import tasks  # noqa: F401  (before Prefect: it keeps every tool silent and off the network)

# On a machine that is busy training, Prefect's temporary server takes longer to start than its 20 seconds of patience.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
