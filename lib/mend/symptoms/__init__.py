"""From an error text or a database to a runbook."""
