SELECT * FROM handoff_penalties ORDER BY switches DESC, from_model, to_model LIMIT 40
