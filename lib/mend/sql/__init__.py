"""mend's questions to PostgreSQL, one file each; read by ``mend.database.queries`` only."""
