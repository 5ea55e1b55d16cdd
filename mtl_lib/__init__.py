"""Multi-task learning with BERT: one module per idea, each met in a chapter of the handbook."""
