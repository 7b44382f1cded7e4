"""What several commands share about models: the choice of a number format."""
