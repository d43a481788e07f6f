-- How many tokens does a caller use in a day, over all of its sessions? One row for each tenant and role, over callers and days on
-- which they were seen. `ceiling_tokens` is three times the median, as for sessions; `over` caller-days were above it, and
-- used `over_tokens`. Callers are known by pseudonyms, so a ceiling is for all of a role, and a router that enforces it keeps
-- its own count.
WITH days AS (
  SELECT
    tenant,
    role,
    caller,
    floor(arrival_ms / 86400000.0) AS day,
    sum(CAST(coalesce(prompt_tokens, 0) AS BIGINT) + coalesce(completion_tokens, 0)) AS tokens
  FROM requests
  WHERE caller IS NOT NULL AND (prompt_tokens IS NOT NULL OR completion_tokens IS NOT NULL)
  GROUP BY tenant, role, caller, floor(arrival_ms / 86400000.0)
),
quantiles AS (
  SELECT
    tenant,
    role,
    count(DISTINCT caller) AS callers,
    count(*) AS caller_days,
    ddsketch_quantile(ddsketch(tokens), 0.5) AS tokens_p50,
    ddsketch_quantile(ddsketch(tokens), 0.9) AS tokens_p90,
    ddsketch_quantile(ddsketch(tokens), 0.99) AS tokens_p99
  FROM days
  GROUP BY tenant, role
)
SELECT
  quantiles.tenant,
  quantiles.role,
  min(callers) AS callers,
  min(caller_days) AS caller_days,
  min(tokens_p50) AS tokens_p50,
  min(tokens_p90) AS tokens_p90,
  min(tokens_p99) AS tokens_p99,
  min(3 * tokens_p50) AS ceiling_tokens,
  count(*) FILTER (WHERE tokens > 3 * tokens_p50) AS over,
  CAST(coalesce(sum(tokens) FILTER (WHERE tokens > 3 * tokens_p50), 0) AS BIGINT) AS over_tokens,
  CAST(sum(tokens) AS BIGINT) AS tokens
FROM quantiles
JOIN days ON (days.tenant IS NOT DISTINCT FROM quantiles.tenant) AND (days.role IS NOT DISTINCT FROM quantiles.role)
GROUP BY quantiles.tenant, quantiles.role
