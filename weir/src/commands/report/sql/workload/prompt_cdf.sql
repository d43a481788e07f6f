SELECT
  tokens,
  ddsketch_share_to(prompt_tokens, tokens) AS prompt_share,
  ddsketch_share_to(completion_tokens, tokens) AS completion_share
FROM (
  SELECT
    unnest(make_array(64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144)) AS tokens,
    prompt_tokens,
    completion_tokens
  FROM (
    SELECT ddsketch_merge(prompt_tokens) AS prompt_tokens, ddsketch_merge(completion_tokens) AS completion_tokens
    FROM workload_sketch
    WHERE window_start_ms >= {from_ms} AND window_start_ms < {to_ms}
  )
)
WHERE ddsketch_count(prompt_tokens) > 0 OR ddsketch_count(completion_tokens) > 0
ORDER BY tokens
