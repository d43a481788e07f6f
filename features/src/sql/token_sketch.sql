-- Coarse partial: token lengths per hour x tenant x domain x model, for length models and reports by domain.
SELECT
  arrival_ms - (arrival_ms % 3600000 + 3600000) % 3600000 AS window_start_ms,
  tenant,
  domain,
  model,
  count(*) AS requests,
  ddsketch(prompt_tokens) AS prompt_tokens,
  ddsketch(completion_tokens) AS completion_tokens
FROM requests
GROUP BY 1, 2, 3, 4
