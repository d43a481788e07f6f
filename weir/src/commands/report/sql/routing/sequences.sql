SELECT tools, times, sessions, lift, known, successes / nullif(CAST(known AS DOUBLE), 0) AS success_share
FROM tool_sequences
ORDER BY times * ln(lift) DESC, tools
LIMIT 20
