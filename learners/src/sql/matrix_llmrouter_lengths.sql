-- How long each answer is, characters. Columns by position.
SELECT query_id, model, CAST(character_length(response) AS DOUBLE) AS answer_chars
FROM scores
WHERE response IS NOT NULL
