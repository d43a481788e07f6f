-- How long both models' answers are, characters. Columns by position.
SELECT query_id, weak_model AS model, CAST(character_length(weak_response) AS DOUBLE) AS answer_chars
FROM pairs
WHERE weak_response IS NOT NULL
UNION ALL
SELECT query_id, strong_model AS model, CAST(character_length(strong_response) AS DOUBLE) AS answer_chars
FROM pairs
WHERE strong_response IS NOT NULL
