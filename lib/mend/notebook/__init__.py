"""What a runbook calls, and what runs it headless or in JupyterLab."""
