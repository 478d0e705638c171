"""The configuration: its schema, the tables of choices, and what identifies a run."""
