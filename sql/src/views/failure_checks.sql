-- Each request and each class of failure that could have been seen in it: did it show? One row for each request and class of
-- view `request_outcomes`, which has the rules; none where nothing that could show the class was reported.
SELECT
  tenant,
  request_id,
  session_id,
  session_start_ms,
  place,
  arrival_ms,
  model,
  domain,
  failure['class'] AS class,
  failure['is_so'] AS is_failure,
  total_tokens
FROM (
  SELECT
    *,
    unnest(
      make_array(
        named_struct('class', 'hallucination', 'is_so', hallucination),
        named_struct('class', 'wrong_tool', 'is_so', wrong_tool),
        named_struct('class', 'bad_arguments', 'is_so', bad_arguments),
        named_struct('class', 'tool_error', 'is_so', tool_error),
        named_struct('class', 'retry_loop', 'is_so', retry_loop),
        named_struct('class', 'refusal', 'is_so', refusal),
        named_struct('class', 'time_out', 'is_so', time_out),
        named_struct('class', 'truncation', 'is_so', truncation),
        named_struct('class', 'schema_violation', 'is_so', schema_violation),
        named_struct('class', 'dissatisfaction', 'is_so', dissatisfaction),
        named_struct('class', 'safety', 'is_so', safety),
        named_struct('class', 'fallback', 'is_so', fallback),
        named_struct('class', 'other_error', 'is_so', other_error)
      )
    ) AS failure
  FROM request_outcomes
)
WHERE failure['is_so'] IS NOT NULL
