-- How often does each model fail in each way, by domain? One row for each class, model and domain in which something that
-- could show the class was reported: `observed` requests, of which `failures` show it. `rate` with its interval of 95 % is the
-- cell's, by partial pooling with the model's other domains and with other models: a cell with little evidence is told mostly
-- by those. `model_rate` is that of the model over its domains, each counted once. A model sees the requests that it was
-- given: of two rates, part of the difference may be that. Days whose rows are no longer kept count as they are remembered.
WITH cells AS (
  SELECT
    model,
    domain,
    sum(hallucination_observed) AS hallucination_observed,
    sum(hallucination_failures) AS hallucination_failures,
    sum(wrong_tool_observed) AS wrong_tool_observed,
    sum(wrong_tool_failures) AS wrong_tool_failures,
    sum(bad_arguments_observed) AS bad_arguments_observed,
    sum(bad_arguments_failures) AS bad_arguments_failures,
    sum(tool_error_observed) AS tool_error_observed,
    sum(tool_error_failures) AS tool_error_failures,
    sum(retry_loop_observed) AS retry_loop_observed,
    sum(retry_loop_failures) AS retry_loop_failures,
    sum(refusal_observed) AS refusal_observed,
    sum(refusal_failures) AS refusal_failures,
    sum(time_out_observed) AS time_out_observed,
    sum(time_out_failures) AS time_out_failures,
    sum(truncation_observed) AS truncation_observed,
    sum(truncation_failures) AS truncation_failures,
    sum(schema_violation_observed) AS schema_violation_observed,
    sum(schema_violation_failures) AS schema_violation_failures,
    sum(dissatisfaction_observed) AS dissatisfaction_observed,
    sum(dissatisfaction_failures) AS dissatisfaction_failures,
    sum(safety_observed) AS safety_observed,
    sum(safety_failures) AS safety_failures,
    sum(fallback_observed) AS fallback_observed,
    sum(fallback_failures) AS fallback_failures,
    sum(other_error_observed) AS other_error_observed,
    sum(other_error_failures) AS other_error_failures
  FROM outcome_pieces
  GROUP BY model, domain
)
SELECT
  class,
  model,
  domain,
  observed,
  failures,
  rates[2]['rate'] AS rate,
  rates[2]['low'] AS rate_low,
  rates[2]['high'] AS rate_high,
  rates[1]['rate'] AS model_rate,
  rates[1]['low'] AS model_rate_low,
  rates[1]['high'] AS model_rate_high
FROM (
  SELECT *, pooled_rates(failures, observed, model, domain) OVER (PARTITION BY class) AS rates
  FROM (
    SELECT model, domain, count['class'] AS class, count['observed'] AS observed, count['failures'] AS failures
    FROM (
      SELECT
        model,
        domain,
        unnest(make_array(
          named_struct(
            'class', 'hallucination', 'observed', hallucination_observed, 'failures', hallucination_failures
          ),
          named_struct(
            'class', 'wrong_tool', 'observed', wrong_tool_observed, 'failures', wrong_tool_failures
          ),
          named_struct(
            'class', 'bad_arguments', 'observed', bad_arguments_observed, 'failures', bad_arguments_failures
          ),
          named_struct(
            'class', 'tool_error', 'observed', tool_error_observed, 'failures', tool_error_failures
          ),
          named_struct(
            'class', 'retry_loop', 'observed', retry_loop_observed, 'failures', retry_loop_failures
          ),
          named_struct(
            'class', 'refusal', 'observed', refusal_observed, 'failures', refusal_failures
          ),
          named_struct(
            'class', 'time_out', 'observed', time_out_observed, 'failures', time_out_failures
          ),
          named_struct(
            'class', 'truncation', 'observed', truncation_observed, 'failures', truncation_failures
          ),
          named_struct(
            'class', 'schema_violation', 'observed', schema_violation_observed, 'failures', schema_violation_failures
          ),
          named_struct(
            'class', 'dissatisfaction', 'observed', dissatisfaction_observed, 'failures', dissatisfaction_failures
          ),
          named_struct(
            'class', 'safety', 'observed', safety_observed, 'failures', safety_failures
          ),
          named_struct(
            'class', 'fallback', 'observed', fallback_observed, 'failures', fallback_failures
          ),
          named_struct(
            'class', 'other_error', 'observed', other_error_observed, 'failures', other_error_failures
          )
        )) AS count
      FROM cells
    )
  )
  WHERE observed > 0
)
