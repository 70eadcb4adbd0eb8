"""Starts a real Airflow in the checkout, runs a night through its API and tells how it ended."""
