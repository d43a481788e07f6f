-- Coarse partial: sketches per 10 minutes x tenant x model x pool.
SELECT
  arrival_ms - (arrival_ms % 600000 + 600000) % 600000 AS window_start_ms,
  tenant,
  model,
  pool,
  count(*) AS requests,
  ddsketch(ttft_us) AS ttft_us,
  ddsketch(tpot_us) AS tpot_us,
  ddsketch(e2e_us) AS e2e_us,
  ddsketch(prompt_tokens) AS prompt_tokens,
  ddsketch(completion_tokens) AS completion_tokens,
  joint_histogram(prompt_tokens, completion_tokens) AS joint_tokens,
  second_counts(arrival_ms) AS arrivals
FROM requests
GROUP BY 1, 2, 3, 4
