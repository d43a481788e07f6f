SELECT tools, times, sessions, lift, known, successes / nullif(CAST(known AS DOUBLE), 0) AS success_share
FROM tool_sequences
WHERE lift > 1
ORDER BY times DESC, tools
LIMIT 20
