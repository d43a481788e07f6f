SELECT
  timestamp_ms AS event_ms,
  message_key || CASE WHEN coalesce(labels['engine'], '0') = '0' THEN '' ELSE '/' || labels['engine'] END AS instance,
  labels['model_name'] AS model,
  "vllm:num_requests_running",
  "vllm:num_requests_waiting",
  coalesce("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc") AS "vllm:kv_cache_usage_perc",
  coalesce("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total") AS "vllm:prefix_cache_queries_total",
  coalesce("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total") AS "vllm:prefix_cache_hits_total",
  "vllm:prompt_tokens_total",
  "vllm:generation_tokens_total",
  "vllm:num_preemptions_total",
  "vllm:request_success_total"
FROM message
