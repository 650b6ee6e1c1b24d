"""What runs when, and what the user sees of it: Prefect owns time, and calls the floor below."""

import tasks  # noqa: F401  (before Prefect: it keeps every tool silent and off the network)
