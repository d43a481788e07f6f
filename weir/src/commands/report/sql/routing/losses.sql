SELECT
  model,
  sum(weighed) AS loss,
  sum(weighed_low) AS loss_low,
  sum(weighed_high) AS loss_high,
  CAST(sum(observed) AS BIGINT) AS observed,
  first_value(class ORDER BY weighed DESC, class) AS worst_class
FROM (
  SELECT
    model,
    class,
    sum(observed) AS observed,
    {weight} * sum(rate * observed) / sum(observed) AS weighed,
    {weight} * sum(rate_low * observed) / sum(observed) AS weighed_low,
    {weight} * sum(rate_high * observed) / sum(observed) AS weighed_high
  FROM failure_rates
  GROUP BY model, class
)
GROUP BY model
ORDER BY loss, model
