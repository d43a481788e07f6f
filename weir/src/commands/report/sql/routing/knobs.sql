SELECT coalesce(knob, '-') AS knob, class, sessions, tokens, with_better_model
FROM attribution_by_knob
ORDER BY sessions DESC, tokens DESC, class
