"""What a record means, whatever format it stood in: a conversation, or fields and columns by their names."""
