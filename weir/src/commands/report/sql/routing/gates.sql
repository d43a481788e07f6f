SELECT * FROM fact_check_gates ORDER BY place LIMIT 40
