"""What a model looks at: maps of inputs, embeddings, and images made to please it."""
