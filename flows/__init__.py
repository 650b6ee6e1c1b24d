"""What runs when, and what the user sees of it: Prefect owns time, and calls the floor below."""

import os
from pathlib import Path

import tasks  # noqa: F401  (before Prefect: it keeps every tool silent and off the network)
from tasks.files import sqlite_uri

# On a machine that is busy training, Prefect's temporary server takes longer to start than its 20 seconds of patience.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")

# Prefect writes the path of its database into a URL as it is.
if "?" in (_home := os.environ.get("PREFECT_HOME", "")):
    os.environ.setdefault(
        "PREFECT_SERVER_DATABASE_CONNECTION_URL", sqlite_uri(Path(_home).expanduser() / "prefect.db", "sqlite+aiosqlite")
    )
