-- Where to push: one row for each knob and class of failure, with the sessions that came out badly for it, the tokens that went
-- into them, and for how many of them the evidence names a model that fails less like that.
SELECT
  knob,
  class,
  count(*) AS sessions,
  CAST(sum(tokens) AS BIGINT) AS tokens,
  count(better_model) AS with_better_model
FROM attribution
GROUP BY knob, class
