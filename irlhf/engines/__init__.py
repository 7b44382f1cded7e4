"""How models run: loading, chat texts, generation. Knows no room."""
