-- Pairs that people judged, in an order that does not depend on how the file is split.
SELECT dataset, context, response, label
FROM pairs
WHERE context IS NOT NULL AND response IS NOT NULL AND label IS NOT NULL AND dataset IS NOT NULL
ORDER BY dataset, id
