SELECT * FROM tool_embedding_trials ORDER BY requests DESC, embedding_model, domain LIMIT 40
