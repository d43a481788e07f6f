-- Each axis by hour of arrival: how many requests lie where, and their tokens. A row whose `value` is NULL counts those of
-- which nothing was reported that could tell; a share is of the others. Of tokens, the reported ones are summed.
SELECT
  to_timestamp_millis(hour_ms) AS hour,
  axis,
  value,
  requests,
  CASE
    WHEN value IS NOT NULL
      THEN requests / CAST(sum(requests) FILTER (WHERE value IS NOT NULL) OVER (PARTITION BY hour_ms, axis) AS DOUBLE)
  END AS share,
  prompt_tokens,
  completion_tokens
FROM (
  SELECT
    hour_ms,
    placed['axis'] AS axis,
    placed['value'] AS value,
    count(*) AS requests,
    sum(CAST(prompt_tokens AS BIGINT)) AS prompt_tokens,
    sum(CAST(completion_tokens AS BIGINT)) AS completion_tokens
  FROM (
    SELECT
      arrival_ms - (arrival_ms % 3600000 + 3600000) % 3600000 AS hour_ms,
      prompt_tokens,
      completion_tokens,
      -- One pass over the requests for all axes.
      unnest(
        make_array(
          named_struct('axis', 'chat_agent', 'value', chat_agent),
          named_struct('axis', 'turns', 'value', turns),
          named_struct('axis', 'cache', 'value', cache),
          named_struct('axis', 'phase', 'value', phase),
          named_struct('axis', 'modality', 'value', modality),
          named_struct('axis', 'reasoning', 'value', reasoning),
          named_struct('axis', 'provider', 'value', provider)
        )
      ) AS placed
    FROM request_axes
  )
  GROUP BY 1, 2, 3
)
