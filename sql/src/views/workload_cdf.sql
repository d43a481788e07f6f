-- How prompt lengths are distributed in each hour, an hour that slides by ten minutes: the share of prompts up to each
-- length, and the archetype of that distribution. From the sketches, so a prompt within 1 % of a length may count on
-- either side of it. The same of prompt and completion together is from the joint histograms, within 5 %.
-- `docs/concepts/axes.md` derives the distances.
--
-- With F the share of prompts of at most 8,192 tokens, a window is concentrated below that boundary if F >= 0.8,
-- concentrated above it if F <= 0.2, and dispersed between. A distance is the least share of prompts that would have to
-- cross the boundary before the window was of that archetype; it is 0 for the archetype that the window has.
WITH slots AS (
  SELECT
    window_start_ms AS slot_ms,
    ddsketch_merge(prompt_tokens) AS prompt_tokens,
    joint_histogram_merge(joint_tokens) AS joint_tokens
  FROM workload_sketch
  GROUP BY window_start_ms
),
-- Ten minutes are part of six sliding hours: the one that ends with them, and the five that end later.
windows AS (
  SELECT
    window_end_ms,
    ddsketch_merge(prompt_tokens) AS prompt_tokens,
    joint_histogram_merge(joint_tokens) AS joint_tokens
  FROM (
    SELECT
      unnest(generate_series(slot_ms + 600000, slot_ms + 3600000, 600000)) AS window_end_ms,
      prompt_tokens,
      joint_tokens
    FROM slots
  )
  GROUP BY window_end_ms
),
shares AS (
  SELECT
    *,
    ddsketch_share_to(prompt_tokens, 8192) AS share_to_8k,
    joint_histogram_share_to(joint_tokens, 8192) AS total_share_to_8k
  FROM windows
  -- No window ends later than the newest ten minutes.
  WHERE window_end_ms - 600000 <= (SELECT max(slot_ms) FROM slots) AND ddsketch_count(prompt_tokens) > 0
)
SELECT
  to_timestamp_millis(window_end_ms - 3600000) AS window_start,
  to_timestamp_millis(window_end_ms) AS window_end,
  ddsketch_count(prompt_tokens) AS prompts,
  ddsketch_share_to(prompt_tokens, 512) AS share_to_512,
  ddsketch_share_to(prompt_tokens, 1024) AS share_to_1k,
  ddsketch_share_to(prompt_tokens, 2048) AS share_to_2k,
  ddsketch_share_to(prompt_tokens, 4096) AS share_to_4k,
  share_to_8k,
  ddsketch_share_to(prompt_tokens, 16384) AS share_to_16k,
  ddsketch_share_to(prompt_tokens, 32768) AS share_to_32k,
  ddsketch_share_to(prompt_tokens, 65536) AS share_to_64k,
  ddsketch_share_to(prompt_tokens, 131072) AS share_to_128k,
  ddsketch_quantile(prompt_tokens, 0.5) AS prompt_tokens_p50,
  ddsketch_quantile(prompt_tokens, 0.99) AS prompt_tokens_p99,
  CASE
    WHEN share_to_8k >= 0.8 THEN 'concentrated_below'
    WHEN share_to_8k <= 0.2 THEN 'concentrated_above'
    ELSE 'dispersed'
  END AS archetype,
  greatest(0.8 - share_to_8k, 0) AS concentrated_below_distance,
  greatest(share_to_8k - 0.8, 0.2 - share_to_8k, 0) AS dispersed_distance,
  greatest(share_to_8k - 0.2, 0) AS concentrated_above_distance,
  total_share_to_8k,
  CASE
    WHEN total_share_to_8k >= 0.8 THEN 'concentrated_below'
    WHEN total_share_to_8k <= 0.2 THEN 'concentrated_above'
    WHEN total_share_to_8k IS NOT NULL THEN 'dispersed'
  END AS total_archetype
FROM shares
