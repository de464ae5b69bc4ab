"""Model Garden tasks, where the stock one does not do."""
