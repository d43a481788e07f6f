SELECT
  domain,
  CAST(from_place AS VARCHAR) AS from_place,
  CAST(failed_requests AS VARCHAR) AS failed_requests,
  CAST(failed_last AS VARCHAR) AS failed_last,
  CAST(cut_requests AS VARCHAR) AS cut_requests,
  gain,
  gain_low,
  gain_high,
  extra_tokens,
  sessions AS evidence
FROM cut_back_gains
WHERE sessions >= 20
