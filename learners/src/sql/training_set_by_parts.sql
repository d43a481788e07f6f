-- The decisions of training_set.sql with actions that are more than a model: `MODEL[;provider=PROVIDER][;reasoning=MODE]`, of the parts
-- that are asked for. A router that names them itself is believed; of a choice that another model answered, the parts are not known.
WITH answered AS (
  SELECT
    *,
    CASE
      WHEN strpos(executed_model, ';') > 0 THEN executed_model
      ELSE concat(
        executed_model,
        CASE WHEN $provider AND provider <> '' THEN concat(';provider=', provider) ELSE '' END,
        CASE WHEN $reasoning AND reasoning <> '' THEN concat(';reasoning=', reasoning) ELSE '' END
      )
    END AS executed_action
  FROM decisions
),
chosen AS (
  SELECT
    *,
    CASE
      WHEN strpos(intended_model, ';') > 0 THEN intended_model
      WHEN executed_as_intended THEN executed_action
    END AS intended_action
  FROM answered
)
SELECT
  chosen.* EXCEPT (executed_model, intended_model, executed_as_intended, executed_action, intended_action),
  executed_action AS executed_model,
  intended_action AS intended_model,
  coalesce(intended_action = executed_action, FALSE) AS executed_as_intended
FROM chosen
ORDER BY arrival_ms, request_id
