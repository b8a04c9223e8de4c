"""The processes you deploy."""
