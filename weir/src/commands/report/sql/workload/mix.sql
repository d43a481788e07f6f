-- As the view `axis_mix`, which is by whole hours, for a period that begins and ends at any time.
SELECT
  placed['axis'] AS axis,
  placed['value'] AS value,
  count(*) AS requests,
  count(*) / CAST(sum(count(*)) OVER (PARTITION BY placed['axis']) AS DOUBLE) AS share,
  avg(prompt_tokens) AS prompt_tokens_mean,
  avg(completion_tokens) AS completion_tokens_mean
FROM (
  SELECT
    prompt_tokens,
    completion_tokens,
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
  WHERE arrival_ms >= {from_ms} AND arrival_ms < {to_ms}
)
WHERE placed['value'] IS NOT NULL
GROUP BY placed['axis'], placed['value']
ORDER BY axis, requests DESC, value
