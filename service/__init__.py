"""What an answer needs, and nothing else: no torch, no Prefect, no DVC, no MLflow."""
