"""The ingest pipeline on many machines: Celery tasks on Redis, their plan and their progress."""
