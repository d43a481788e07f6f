SELECT model, domain, complexity, judged_on, judged_off, success_on, success_off, gain, extra_tokens, extra_ms
FROM reasoning_gain
WHERE judged_on >= 20 AND judged_off >= 20
ORDER BY gain DESC, model, domain, complexity
LIMIT 40
